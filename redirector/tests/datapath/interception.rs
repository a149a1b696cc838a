//! DNS interception at sockets: which queries go to the ports of the shim, what source their
//! replies have, and which queries pass. A responder that replies with its own address and port
//! stands in for the shim, and another one for a resolver.

use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr},
    process::{Child, Command, Stdio},
    time::Duration,
};

use redirector::datapath::{Datapath, InterceptionStatus, ShimEndpoint};
use redirector_common::dns::SLOTS;
use testbed::{ExecutorOptions, Network, Sandbox, process};

use crate::rig::{Bed, LIMIT, attached};

const SCRIPT: &str = include_str!("interception.py");
const SHIM: &str = "169.254.20.53";
const SHIM6: &str = "fd00:20::53";
const FIRST_PORT: u16 = 334;
/// An address at the customer, where a resolver may answer.
const RESOLVER: &str = "203.0.113.53";
/// A resolver that does not exist: only the shim can answer.
const ABSENT: &str = "10.96.0.10";

fn script(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = sandbox.command("/usr/bin/python3");
    command.args(["-c", SCRIPT]).args(arguments);
    command
}

/// The output of a client.
fn ask(sandbox: &Sandbox, arguments: &[&str]) -> Vec<String> {
    let finished = process::finish(script(sandbox, arguments), LIMIT).unwrap();
    finished
        .success()
        .unwrap_or_else(|error| panic!("{arguments:?}: {error:#}"))
        .stdout
        .lines()
        .map(str::to_owned)
        .collect()
}

/// A responder, until it is dropped.
struct Responder(Child);

impl Responder {
    fn start(sandbox: &Sandbox, address: &str, ports: &[&str]) -> Self {
        let mut child = script(sandbox, &[&["serve", address], ports].concat())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Self(child)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A bed with a responder on each of the shim's ports, and nothing intercepted yet.
struct Intercepting {
    bed: Bed,
    /// The resolver of each slot.
    slots: Vec<Option<IpAddr>>,
    _shim: Vec<Responder>,
}

impl Intercepting {
    fn new() -> Self {
        let bed = Bed::new();
        let sandbox = bed.rig.node.sandbox();
        for address in [format!("{SHIM}/32"), format!("{SHIM6}/128")] {
            sandbox
                .run(&format!("ip addr add {address} dev lo nodad"), LIMIT)
                .unwrap()
                .success()
                .unwrap();
        }
        let (first, count) = (FIRST_PORT.to_string(), SLOTS.to_string());
        let shim = [SHIM, SHIM6]
            .map(|address| Responder::start(sandbox, address, &[&first, &count, "53"]));
        let mut new = Self { bed, slots: Vec::new(), _shim: shim.into() };
        new.datapath().set_shim(&endpoint()).unwrap();
        new
    }

    /// The same, with queries to these resolvers intercepted.
    fn listing(resolvers: &[&str]) -> Self {
        let mut new = Self::new();
        new.list(resolvers);
        new.datapath().heartbeat().unwrap();
        new
    }

    fn list(&mut self, resolvers: &[&str]) {
        let listed: Vec<IpAddr> = resolvers.iter().map(|at| at.parse().unwrap()).collect();
        self.slots = self.datapath().list_resolvers(&listed).unwrap().to_vec();
        self.datapath().intercept(true).unwrap();
    }

    fn datapath(&mut self) -> &mut Datapath {
        &mut self.bed.datapath
    }

    fn status(&self) -> InterceptionStatus {
        self.bed.datapath.interception().unwrap()
    }

    /// The output of a client in the pod, with the agent alive.
    fn ask(&mut self, arguments: &[&str]) -> Vec<String> {
        self.datapath().heartbeat().unwrap();
        ask(self.bed.executor.sandbox(), arguments)
    }

    /// The shim's port for a resolver.
    fn port_of(&self, resolver: &str) -> u16 {
        let resolver = Some(resolver.parse::<IpAddr>().unwrap());
        let slot = self.slots.iter().position(|slot| *slot == resolver);
        FIRST_PORT + slot.unwrap_or_else(|| panic!("{resolver:?} has no slot")) as u16
    }

    fn intercepted(&self, resolver: &str) -> u64 {
        let resolver = resolver.parse::<IpAddr>().unwrap();
        self.status()
            .resolvers
            .iter()
            .find(|known| known.address == resolver)
            .map_or(0, |known| known.intercepted)
    }

    /// Starts the resolver at [`RESOLVER`].
    fn resolver(&self) -> Responder {
        Responder::start(self.bed.rig.customer.sandbox(), RESOLVER, &["53", "2"])
    }
}

fn endpoint() -> ShimEndpoint {
    ShimEndpoint {
        ipv4: Some(SHIM.parse().unwrap()),
        ipv6: Some(SHIM6.parse().unwrap()),
        first_port: FIRST_PORT,
    }
}

#[test]
fn every_query_gets_the_shims_answer_from_its_resolver() {
    let mut bed = Intercepting::listing(&[ABSENT, RESOLVER]);
    let ways = [
        ("connected", ABSENT),
        ("unconnected", ABSENT),
        ("mapped_connected", "::ffff:10.96.0.10"),
        ("mapped_unconnected", "::ffff:10.96.0.10"),
        ("tcp", ABSENT),
        ("mapped_tcp", "::ffff:10.96.0.10"),
    ];
    for (count, (way, source)) in (1..).zip(ways) {
        let seen = bed.ask(&[way, ABSENT]);
        assert_eq!(seen, [format!("{source}#53 {SHIM}#{}", bed.port_of(ABSENT))], "{way}");
        assert_eq!(bed.intercepted(ABSENT), count, "{way} is counted once");
    }
    let seen = bed.ask(&["both", ABSENT, RESOLVER]);
    assert_eq!(
        seen,
        [ABSENT, RESOLVER]
            .map(|resolver| format!("{resolver}#53 {SHIM}#{}", bed.port_of(resolver))),
        "sendmmsg"
    );
    let status = bed.status();
    assert!(status.on && status.resolvers.len() == 2 && status.heartbeat_stale == 0, "{status:?}");
}

#[test]
fn ipv6_resolvers_are_answered_by_the_shims_ipv6_address() {
    let mut bed = Intercepting::listing(&["fd00:96::10", "fe80::1"]);
    let host = bed
        .bed
        .rig
        .executor(ExecutorOptions { network: Network::Host, ..ExecutorOptions::pod("host") })
        .unwrap();
    for way in ["connected", "unconnected", "tcp"] {
        bed.datapath().heartbeat().unwrap();
        let seen = ask(host.sandbox(), &[way, "fd00:96::10"]);
        assert_eq!(
            seen,
            [format!("fd00:96::10#53 {SHIM6}#{}", bed.port_of("fd00:96::10"))],
            "{way}"
        );
    }
    assert_eq!(bed.intercepted("fd00:96::10"), 3);
    // A link-local resolver is another host on each link; the shim does not answer for it.
    ask(host.sandbox(), &["connected", "fe80::1"]);
    assert_eq!(bed.intercepted("fe80::1"), 0);
}

#[test]
fn two_resolvers_have_two_ports_of_the_shim() {
    let mut bed = Intercepting::listing(&[ABSENT, "10.96.0.11"]);
    let other = bed.bed.rig.executor(ExecutorOptions::pod("other")).unwrap();
    let first = bed.ask(&["unconnected", ABSENT]);
    let second = ask(other.sandbox(), &["unconnected", "10.96.0.11"]);
    let (one, two) = (bed.port_of(ABSENT), bed.port_of("10.96.0.11"));
    assert_ne!(one, two);
    assert_eq!(
        [first, second].concat(),
        [format!("{ABSENT}#53 {SHIM}#{one}"), format!("10.96.0.11#53 {SHIM}#{two}")]
    );
}

#[test]
fn only_dns_queries_of_executors_are_intercepted() {
    let mut bed = Intercepting::listing(&[ABSENT, RESOLVER, SHIM]);
    let _resolver = bed.resolver();
    let original = [format!("{RESOLVER}#53 {RESOLVER}#53")];
    assert_eq!(bed.ask(&["marked", RESOLVER]), original, "the agent's own");
    assert_eq!(
        ask(bed.bed.executor.outside(), &["connected", RESOLVER]),
        original,
        "another cgroup's"
    );
    assert_eq!(
        bed.ask(&["elsewhere", RESOLVER]),
        [format!("{RESOLVER}#54 {RESOLVER}#54")],
        "another port's"
    );
    assert_eq!(
        bed.ask(&["connected", SHIM]),
        [format!("{SHIM}#53 {SHIM}#53")],
        "the shim's own address"
    );
    assert_eq!([ABSENT, RESOLVER, SHIM].map(|resolver| bed.intercepted(resolver)), [0; 3]);
}

#[test]
fn a_loopback_resolver_is_intercepted_in_the_host_network_only() {
    let mut bed = Intercepting::listing(&["127.0.0.11", "127.0.0.53"]);
    let _docker_resolver = Responder::start(bed.bed.executor.sandbox(), "127.0.0.11", &["53", "1"]);
    let untouched = ["127.0.0.11#53 127.0.0.11#53"];
    for way in ["connected", "unconnected", "tcp"] {
        assert_eq!(bed.ask(&[way, "127.0.0.11"]), untouched, "{way}");
    }
    assert_eq!(
        bed.ask(&["mapped_unconnected", "127.0.0.11"]),
        ["::ffff:127.0.0.11#53 127.0.0.11#53"]
    );
    assert_eq!(bed.intercepted("127.0.0.11"), 0);
    let host = bed
        .bed
        .rig
        .executor(ExecutorOptions { network: Network::Host, ..ExecutorOptions::pod("host") })
        .unwrap();
    bed.datapath().heartbeat().unwrap();
    let seen = ask(host.sandbox(), &["unconnected", "127.0.0.53"]);
    assert_eq!(seen, [format!("127.0.0.53#53 {SHIM}#{}", bed.port_of("127.0.0.53"))]);
}

#[test]
fn without_a_heartbeat_for_two_seconds_queries_pass() {
    let mut bed = Intercepting::listing(&[ABSENT, RESOLVER]);
    let _resolver = bed.resolver();
    assert_eq!(
        bed.ask(&["connected", RESOLVER]),
        [format!("{RESOLVER}#53 {SHIM}#{}", bed.port_of(RESOLVER))]
    );
    // A query sent before the heartbeat went stale, whose reply comes after that.
    let (sent, sandbox) = (
        format!("{RESOLVER}#53 {SHIM}#{}", bed.port_of(RESOLVER)),
        bed.bed.executor.sandbox().clone(),
    );
    bed.datapath().heartbeat().unwrap();
    let slow = std::thread::spawn(move || ask(&sandbox, &["slowly", RESOLVER]));
    std::thread::sleep(Duration::from_millis(2050));
    for way in ["connected", "unconnected", "tcp"] {
        assert_eq!(
            ask(bed.bed.executor.sandbox(), &[way, RESOLVER]),
            [format!("{RESOLVER}#53 {RESOLVER}#53")],
            "{way}"
        );
    }
    assert_eq!(slow.join().unwrap(), [sent], "the reply has the source that the query was sent to");
    assert_eq!(bed.status().heartbeat_stale, 3);
    bed.datapath().heartbeat().unwrap();
    assert_eq!(
        ask(bed.bed.executor.sandbox(), &["connected", RESOLVER]),
        [format!("{RESOLVER}#53 {SHIM}#{}", bed.port_of(RESOLVER))]
    );
}

#[test]
fn only_listed_resolvers_are_intercepted() {
    let mut bed = Intercepting::listing(&[ABSENT]);
    let _resolver = bed.resolver();
    let original = [format!("{RESOLVER}#53 {RESOLVER}#53")];
    assert_eq!(
        bed.ask(&["connected", ABSENT]),
        [format!("{ABSENT}#53 {SHIM}#{}", bed.port_of(ABSENT))]
    );
    for way in ["connected", "unconnected", "tcp"] {
        assert_eq!(bed.ask(&[way, RESOLVER]), original, "{way}");
    }
    bed.list(&[RESOLVER]);
    let expected = [format!("{RESOLVER}#53 {SHIM}#{}", bed.port_of(RESOLVER))];
    assert_eq!(bed.ask(&["connected", RESOLVER]), expected);
    bed.datapath().intercept(false).unwrap();
    assert_eq!(bed.ask(&["connected", RESOLVER]), original);
    let many: Vec<IpAddr> =
        (0..=SLOTS as u8).map(|last| Ipv4Addr::new(10, 0, 0, last).into()).collect();
    let error = bed.datapath().list_resolvers(&many).unwrap_err().to_string();
    assert!(error.contains("dns.intercept_resolvers"), "{error}");
    assert_eq!(bed.ask(&["connected", RESOLVER]), original);
}

/// A crowd of other resolvers once pushed a resolver out of its slot, and its open sockets then
/// received another client's queries.
#[test]
fn no_client_changes_the_slot_of_a_resolver() {
    let mut bed = Intercepting::listing(&[ABSENT]);
    let before = bed.ask(&["connected", ABSENT]);
    assert_eq!(bed.ask(&["every", "10.96.1", "200"]), ["asked"]);
    assert_eq!(bed.ask(&["connected", ABSENT]), before);
    let addresses: Vec<_> = bed.status().resolvers.iter().map(|at| at.address).collect();
    assert_eq!(addresses, [ABSENT.parse::<IpAddr>().unwrap()]);
}

#[test]
fn a_new_agent_keeps_the_resolver_slots() {
    let mut bed = Intercepting::listing(&["10.96.0.9", ABSENT]);
    let before = bed.ask(&["connected", ABSENT]);
    let port = bed.port_of(ABSENT);
    bed.bed.datapath = attached(&bed.bed.rig);
    assert_eq!(bed.ask(&["connected", ABSENT]), before, "until it lists resolvers");
    bed.list(&["10.96.0.12", ABSENT]);
    assert_eq!(bed.port_of(ABSENT), port);
    assert_eq!(bed.ask(&["connected", ABSENT]), before);
    bed.datapath().set_shim(&endpoint()).unwrap();
    assert!(bed.status().on, "it hands over to itself");
    let moved = ShimEndpoint { first_port: FIRST_PORT + 16, ..endpoint() };
    bed.datapath().set_shim(&moved).unwrap();
    assert!(!bed.status().on, "nobody listens there yet");
}
