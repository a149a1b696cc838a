//! Sockets of a pod whose connections are redirected by packet: swaps of the programs, tables that
//! are wiped, connections to the load balancers' own addresses.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    thread,
};

use redirector::datapath::{InterfaceRole, TcHook};
use redirector_common::{
    names,
    packet::flow::{BriefFlow, Flow, FlowKey},
};
use testbed::{Executor, ExecutorOptions, Sandbox, process};

use crate::{
    flow_field::{BACKENDS, OTHER_ROUTE, ROUTE, put},
    rig::{Bed, LIMIT},
};

const VIP: &str = "198.18.0.7";
const OTHER_VIP: &str = "198.18.0.8";

fn script(name: &str) -> String {
    format!("{}/tests/packets/{name}.py", env!("CARGO_MANIFEST_DIR"))
}

/// A client in the pod.
struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn start(sandbox: &Sandbox) -> Self {
        let mut command = sandbox.command("/usr/bin/python3");
        command.arg(script("flow_client")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process::spawn_lasting(command).unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    /// Lets it act, and returns what it says.
    fn act(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pod with a redirecting interface, and the servers of two routes.
struct Stage {
    pod: Executor,
    server: Child,
    bed: Bed,
}

impl Stage {
    fn new(hook: TcHook, backends: &[&str]) -> Self {
        let mut bed = Bed::new();
        if hook == TcHook::Clsact {
            bed.datapath.force_clsact();
        }
        let pod = bed.rig.executor(ExecutorOptions::pod("job")).unwrap();
        bed.attach("pod1", InterfaceRole::Guest);
        assert!(bed.datapath.interface_attachments().iter().all(|at| at.hook == hook));
        put(&mut bed, ROUTE, backends);
        put(&mut bed, OTHER_ROUTE, backends);
        let log = bed.rig.files().join("server.log");
        let mut command = bed.rig.customer.sandbox().command("/usr/bin/python3");
        command.arg(script("flow_server")).args(BACKENDS).stdout(File::create(&log).unwrap());
        let server = process::spawn_lasting(command).unwrap();
        let stage = Self { pod, server, bed };
        process::until("the servers", LIMIT, || Ok(stage.log().contains("ready"))).unwrap();
        stage
    }

    /// The output of the servers.
    fn log(&self) -> String {
        std::fs::read_to_string(self.bed.rig.files().join("server.log")).unwrap()
    }

    fn client(&self) -> Client {
        Client::start(self.pod.sandbox())
    }

    /// Removes every flow.
    fn wipe(&self) {
        let mut table = self.bed.hash::<FlowKey, Flow>(names::FLOWS);
        let keys: Vec<FlowKey> = table.keys().map(Result::unwrap).collect();
        assert!(!keys.is_empty());
        for key in keys {
            table.remove(&key).unwrap();
        }
        let mut table = self.bed.lru_hash::<FlowKey, BriefFlow>(names::BRIEF_FLOWS);
        let keys: Vec<FlowKey> = table.keys().map(Result::unwrap).collect();
        for key in keys {
            // One of the programs may have removed it.
            let _ = table.remove(&key);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The number of connections to each backend, as `flow_client.py` prints it.
fn parse_counts(line: &str) -> Vec<u64> {
    BACKENDS
        .map(|backend| {
            let count = line.split(' ').find_map(|part| part.strip_prefix(backend));
            count.map_or(0, |count| count[1..].parse().unwrap())
        })
        .to_vec()
}

fn assert_counters_equal_what_clients_saw(hook: TcHook) {
    const NUMBER: u64 = 200;
    let stage = Stage::new(hook, &BACKENDS);
    let mut client = stage.client();
    let seen = client.act(&format!("many {VIP} {NUMBER}"));
    let expected = parse_counts(&seen);
    assert_eq!(expected.iter().sum::<u64>(), NUMBER, "{seen}");
    let counters = stage.bed.datapath.route_counters(ROUTE).unwrap();
    assert_eq!((counters.started, counters.established), (NUMBER, NUMBER), "{counters:?}");
    assert_eq!((counters.closed, counters.refused, counters.timed_out), (NUMBER, 0, 0));
    // "hello" and an address.
    assert_eq!(counters.tx_bytes, NUMBER * 5);
    assert_eq!(counters.rx_bytes, NUMBER * BACKENDS[0].len() as u64);
    let backends = stage.bed.datapath.backends(ROUTE).unwrap();
    let counted: Vec<u64> = backends.iter().map(|at| at.counters.established).collect();
    assert_eq!(counted, expected);
    assert!(expected.iter().all(|&count| count > NUMBER / 10), "{seen}");
}

#[test]
fn counters_equal_what_clients_saw() {
    assert_counters_equal_what_clients_saw(TcHook::Tcx);
}

#[test]
fn counters_equal_what_clients_saw_by_clsact() {
    assert_counters_equal_what_clients_saw(TcHook::Clsact);
}

/// Established connections stay while agent follows agent, and no new one fails.
fn assert_swaps_break_nothing(hook: TcHook) {
    const SWAPS: usize = 12;
    const NUMBER: u64 = 400;
    let mut stage = Stage::new(hook, &BACKENDS);
    let (mut held, mut busy) = (stage.client(), stage.client());
    for _ in 0..5 {
        assert!(held.act(&format!("connect {VIP}")).ends_with(VIP));
    }
    let load = thread::spawn(move || busy.act(&format!("many {VIP} {NUMBER}")));
    for _ in 0..SWAPS {
        stage.bed.reopen();
        if hook == TcHook::Clsact {
            stage.bed.datapath.force_clsact();
        }
        stage.bed.attach("pod1", InterfaceRole::Guest);
        assert_eq!(held.act("echo"), "5 of 5");
    }
    let seen = load.join().unwrap();
    assert_eq!(parse_counts(&seen).iter().sum::<u64>(), NUMBER, "{seen}");
    let counters = stage.bed.datapath.route_counters(ROUTE).unwrap();
    assert_eq!((counters.established, counters.closed), (NUMBER + 5, NUMBER), "{counters:?}");
}

#[test]
fn swaps_under_load_break_no_connection() {
    assert_swaps_break_nothing(TcHook::Tcx);
}

#[test]
fn swaps_under_load_break_no_connection_by_clsact() {
    assert_swaps_break_nothing(TcHook::Clsact);
}

#[test]
fn an_upgrade_breaks_no_connection() {
    let mut stage = Stage::new(TcHook::Tcx, &BACKENDS);
    let mut client = stage.client();
    for _ in 0..5 {
        assert!(client.act(&format!("connect {VIP}")).ends_with(VIP));
    }
    stage.bed.upgrade();
    assert_eq!(client.act("echo"), "5 of 5", "while the older programs serve");
    stage.bed.attach("pod1", InterfaceRole::Guest);
    assert_eq!(client.act("echo"), "5 of 5");
    assert!(client.act(&format!("connect {VIP}")).ends_with(VIP));
    for _ in 0..6 {
        assert_eq!(client.act("close"), "closed");
    }
    let counters = stage.bed.datapath.route_counters(ROUTE).unwrap();
    assert_eq!((counters.started, counters.established), (6, 6), "{counters:?}");
}

/// A guest that tags its frames itself.
#[test]
fn a_tag_belongs_to_the_flow_and_stays() {
    let stage = Stage::new(TcHook::Tcx, &BACKENDS[..1]);
    let mut client = stage.client();
    let mac = stage.bed.shell("ip -o link show pod1 | grep -o 'ether [^ ]*' | cut -d' ' -f2");
    let refused = client.act(&format!("tagged 198.18.0.99 77 {}", mac.trim()));
    assert_eq!(refused, "flags 0x14 tag 77", "a reset");
    assert_eq!(client.act(&format!("tagged {VIP} 78 {}", mac.trim())), "TimeoutError");
    let flows = stage.bed.lru_hash::<FlowKey, BriefFlow>(names::BRIEF_FLOWS);
    let vlans: Vec<u32> = flows.keys().map(|key| key.unwrap().vlan).collect();
    assert_eq!(vlans, [FlowKey::TAGGED | 78; 2]);
}

#[test]
fn a_wiped_table_ends_connections_of_both_sides() {
    let stage = Stage::new(TcHook::Tcx, &BACKENDS[..1]);
    let mut client = stage.client();
    assert!(client.act(&format!("connect {VIP}")).ends_with(VIP));
    stage.wipe();
    assert_eq!(client.act("last"), "ECONNRESET", "the guest's segment is answered");
    assert_eq!(client.act("close"), "closed");
    assert!(client.act(&format!("connect {VIP}")).ends_with(VIP));
    assert_eq!(client.act("later"), "asked");
    stage.wipe();
    // The guest's kernel does not know the backend's segment, and resets it.
    process::until("the server's reset", LIMIT, || Ok(stage.log().contains("reset"))).unwrap();
    assert_eq!(client.act("last"), "ECONNRESET");
    assert!(client.act(&format!("connect {VIP}")).ends_with(VIP));
}

#[test]
fn a_direct_connection_shares_the_port_of_another() {
    let stage = Stage::new(TcHook::Tcx, &BACKENDS[..1]);
    let mut client = stage.client();
    // One after the other.
    assert_eq!(client.act(&format!("connect {VIP} 45000")), format!("{} {VIP}", BACKENDS[0]));
    assert_eq!(client.act("close"), "closed");
    let direct = format!("connect {} 45000", BACKENDS[0]);
    assert_eq!(client.act(&direct), format!("{0} {0}", BACKENDS[0]));
    assert_eq!(client.act("last"), "ping");
    assert_eq!(client.act("close"), "closed");
    // At once: for the backend they are the same connection, and the older one stays.
    assert_eq!(client.act(&format!("connect {VIP} 45001")), format!("{} {VIP}", BACKENDS[0]));
    let seen = client.act(&format!("connect {} 45001", BACKENDS[0]));
    assert!(["TimeoutError", "ECONNRESET"].contains(&seen.as_str()), "{seen}");
    assert_eq!(client.act("last"), "ping");
    // From other ports, they do not meet.
    assert_eq!(
        client.act(&format!("connect {} 45002", BACKENDS[0])),
        format!("{0} {0}", BACKENDS[0])
    );
    assert_eq!(client.act("echo"), "2 of 2");
}

#[test]
fn one_port_reaches_two_vips_of_a_backend() {
    let stage = Stage::new(TcHook::Tcx, &BACKENDS[..1]);
    let mut client = stage.client();
    for vip in [VIP, OTHER_VIP] {
        assert_eq!(client.act(&format!("connect {vip} 45000")), format!("{} {vip}", BACKENDS[0]));
    }
    assert_eq!(client.act("echo"), "2 of 2");
    assert_eq!(stage.bed.datapath.packet_stats().unwrap().ports_translated, 1);
    let counters = stage.bed.datapath.route_counters(OTHER_ROUTE).unwrap();
    assert_eq!((counters.established, counters.closed), (1, 0));
}
