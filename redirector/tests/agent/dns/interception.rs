//! DNS interception at sockets: executors whose nameserver is not the shim.

use std::{
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    process::{Child, Stdio},
    time::Duration,
};

use testbed::{
    Executor, ExecutorOptions, ResolvConf, Sandbox,
    clients::{DnsLoad, DnsLoadOptions, DnsLoadReport},
    process::until,
    topology::{INTERNAL_NAME, UNRELATED_ADDRESS, UNRELATED_NAME},
};

use crate::rig::{Job, LIMIT};

const ROUTE: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";

/// With [`ONE`] and [`TWO`] intercepted at sockets.
pub(crate) const CONFIG: &str = "\
[dns]
intercept = \"sockets\"
intercept_resolvers = [\"203.0.113.53\", \"203.0.113.55\"]
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";

/// The customer's DNS server, which refuses the internal name, and another one that answers every
/// name with one address.
pub(crate) const ONE: &str = "203.0.113.53";
pub(crate) const TWO: (&str, Ipv4Addr) = ("203.0.113.55", Ipv4Addr::new(192, 0, 2, 81));

/// Answers each A query with the given address.
pub(crate) const SERVER: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
print('up', flush=True)
while True:
    query, client = s.recvfrom(4096)
    end = query.index(0, 12) + 5
    is_a = query[end - 4:end] == bytes([0, 1, 0, 1])
    head = query[:2] + bytes([0x81, 0x80, 0, 1, 0, int(is_a), 0, 0, 0, 0])
    record = bytes([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]) + socket.inet_aton(sys.argv[2])
    s.sendto(head + query[12:end] + (record if is_a else b''), client)
";

pub(crate) fn pod(job: &Job, name: &str, nameserver: &str) -> Executor {
    job.rig
        .executor(ExecutorOptions {
            resolv: ResolvConf::of(nameserver),
            ..ExecutorOptions::pod(name)
        })
        .unwrap()
}

/// The address of a name according to glibc; empty if none.
pub(crate) fn address(executor: &Executor, name: &str) -> String {
    let finished = executor
        .run(&format!("getent ahostsv4 {name} | head -n 1 | cut -d' ' -f1"), LIMIT)
        .unwrap();
    finished.stdout.trim().to_owned()
}

pub(crate) fn is_vip(address: &str) -> bool {
    address.starts_with("198.18.")
}

/// A process that has printed its first line; killed when dropped.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(mut command: std::process::Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Self(child)
    }

    /// Its next line, for which it waits for one on standard input.
    pub(crate) fn answer_line(mut self) -> String {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_client_gets_the_vip_from_its_own_server() {
    let job = Job::with_config(CONFIG);
    let executor = pod(&job, "stranger", ONE);
    let vip = address(&executor, INTERNAL_NAME);
    assert!(is_vip(&vip), "{vip:?}\n{}", job.agent.log_tail());
    assert_eq!(address(&executor, UNRELATED_NAME), UNRELATED_ADDRESS.to_string());
    for options in ["", "+tcp", "+dnssec +bufsize=1232"] {
        let output = executor
            .run(&format!("dig {options} {INTERNAL_NAME} A"), LIMIT)
            .unwrap()
            .success()
            .unwrap()
            .stdout;
        assert!(
            output.contains(&vip) && output.contains(&format!("SERVER: {ONE}#53")),
            "{options}: {output}"
        );
        let output = executor
            .run(&format!("dig +short {options} {UNRELATED_NAME} A"), LIMIT)
            .unwrap()
            .success()
            .unwrap()
            .stdout;
        assert_eq!(output.trim(), UNRELATED_ADDRESS.to_string(), "{options}");
    }
    let status = job.json(&["status"]);
    let interception = &status["dns"]["interception"];
    assert!(
        interception["on"] == true && interception["resolvers"][0]["address"] == ONE,
        "{interception}"
    );
    assert!(job.cli(&["status"]).stdout.contains(&format!("sockets: queries to {ONE} (")));
    // Outside the attached cgroups nothing is intercepted: the server itself refuses the name.
    let outside = executor.outside().run(&format!("dig {INTERNAL_NAME} A"), LIMIT).unwrap().stdout;
    assert!(outside.contains("REFUSED"), "{outside}");
}

#[test]
fn pods_get_the_answers_of_their_own_resolvers() {
    let job = Job::with_config(CONFIG);
    job.rig
        .customer
        .sandbox()
        .run(&format!("ip addr add {}/24 dev public", TWO.0), LIMIT)
        .unwrap()
        .success()
        .unwrap();
    let mut command = job.rig.customer.sandbox().command("/usr/bin/python3");
    command.args(["-c", SERVER, TWO.0, &TWO.1.to_string()]);
    let _server = Running::start(command);
    let (first, second) = (pod(&job, "first", ONE), pod(&job, "second", TWO.0));
    for _ in 0..3 {
        assert_eq!(address(&first, UNRELATED_NAME), UNRELATED_ADDRESS.to_string());
        assert_eq!(address(&second, UNRELATED_NAME), TWO.1.to_string());
    }
    let vips = [&first, &second].map(|pod| address(pod, INTERNAL_NAME));
    assert!(is_vip(&vips[0]) && vips[0] == vips[1], "{vips:?}");
}

#[test]
fn two_seconds_after_the_agent_dies_queries_bypass_the_shim() {
    let mut job = Job::with_config(CONFIG);
    let executor = pod(&job, "stranger", ONE);
    assert!(is_vip(&address(&executor, INTERNAL_NAME)));
    job.agent.sigkill().unwrap();
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(address(&executor, UNRELATED_NAME), UNRELATED_ADDRESS.to_string());
    assert_eq!(address(&executor, INTERNAL_NAME), "");
    // The maps show it without the agent.
    let output = job.cli(&["status", "-o", "json"]);
    let interception =
        serde_json::from_str::<serde_json::Value>(&output.stdout).unwrap()["dns"]["interception"]
            .take();
    assert_eq!(
        (&interception["on"], &interception["resolvers"][0]["address"]),
        (&false.into(), &ONE.into()),
        "{}",
        output.text()
    );
    assert!(
        interception["resolvers"][0]["intercepted"].as_u64() > Some(0)
            && interception["bypassed_heartbeat_stale"].as_u64() > Some(0),
        "{interception}"
    );
    let output = job.cli(&["status"]);
    assert!(output.stdout.contains("off: the agent's heartbeat is stale"), "{}", output.text());
    job.agent.restart().unwrap();
    until("interception to resume", LIMIT, || Ok(is_vip(&address(&executor, INTERNAL_NAME))))
        .unwrap();
    // A normal stop ends interception at once.
    job.agent.sigterm().unwrap();
    assert_eq!(address(&executor, UNRELATED_NAME), UNRELATED_ADDRESS.to_string());
}

/// UDP packets that a network namespace received and dropped.
#[derive(Clone, Copy, Debug)]
struct LostPackets {
    /// For a port without a socket.
    to_no_port: u64,
    /// For a full socket.
    to_a_full_socket: u64,
}

impl LostPackets {
    fn at(sandbox: &Sandbox) -> Self {
        let text = sandbox.run("cat /proc/net/snmp", LIMIT).unwrap().success().unwrap().stdout;
        let lines: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("Udp:"))
            .map(|line| line.split(' ').collect())
            .collect();
        let count = |name| {
            lines[1][lines[0].iter().position(|column| *column == name).unwrap()].parse().unwrap()
        };
        Self { to_no_port: count("NoPorts"), to_a_full_socket: count("RcvbufErrors") }
    }

    fn since(self, before: Self) -> Self {
        Self {
            to_no_port: self.to_no_port - before.to_no_port,
            to_a_full_socket: self.to_a_full_socket - before.to_a_full_socket,
        }
    }
}

/// The results of 5,000 queries a second while `restart` runs, and the packets that the node, the
/// resolver's host and the pod have lost.
fn load_across(
    job: &mut Job,
    executor: &Executor,
    retry_ms: u64,
    restart: impl FnOnce(&mut Job),
) -> (DnsLoadReport, [LostPackets; 3]) {
    let count = |job: &Job| {
        [job.rig.node.sandbox(), job.rig.customer.sandbox(), executor.sandbox()]
            .map(LostPackets::at)
    };
    let names = [INTERNAL_NAME, UNRELATED_NAME].map(str::to_owned).to_vec();
    let options =
        DnsLoadOptions { server: ONE.parse().unwrap(), rate: 5000, count: 40_000, retry_ms, names };
    let before = count(job);
    let mut load = DnsLoad::start(executor.sandbox(), &options).unwrap();
    load.wait_half().unwrap();
    restart(job);
    let report = load.report().unwrap();
    let after = count(job);
    let arrived = [0, 1, 2].map(|at| after[at].since(before[at]));
    println!("{report:?}\nnode, resolver, pod: {arrived:?}");
    assert!(
        report.sent == 40_000 && report.wrong_source == 0 && report.failed.is_empty(),
        "{report:?}"
    );
    (report, arrived)
}

#[test]
fn a_restart_under_load_leaves_no_query_unanswered() {
    let mut job = Job::with_config(CONFIG);
    let executor = pod(&job, "stranger", ONE);
    assert!(is_vip(&address(&executor, INTERNAL_NAME)));
    let (report, [node, resolver, pod]) = load_across(&mut job, &executor, 1000, |job| {
        job.agent.sigterm().unwrap();
        job.agent.restart().unwrap();
    });
    let output = format!(
        "{report:?}, node, resolver and pod: {:?}\n{}",
        [node, resolver, pod],
        job.agent.log_tail()
    );
    // Each first packet was answered, perhaps late on a busy machine, except those that a full
    // socket outside the agent has dropped.
    assert!(report.unanswered <= resolver.to_a_full_socket + pod.to_a_full_socket, "{output}");
    assert_eq!(
        (report.refused, node.to_no_port, node.to_a_full_socket, report.lost),
        (0, 0, 0, 0),
        "{output}"
    );
    // An internal name has its VIP or, in between, the resolver's own answer; other names always
    // have their own. A client gets SERVFAIL when 768 of its queries wait for the resolver, which
    // at 2,500 a second takes a machine that stalls for 300 ms.
    let stood_still = report.slowest_ms >= 300;
    let expected =
        [format!("{INTERNAL_NAME} 0"), format!("{INTERNAL_NAME} 5"), format!("{UNRELATED_NAME} 0")];
    let is_valid =
        |answer: &String| expected.contains(answer) || (stood_still && answer.ends_with(" 2"));
    assert!(
        expected.iter().all(|answer| report.answers.contains_key(answer))
            && report.answers.keys().all(is_valid),
        "{output}"
    );
    assert!(is_vip(&address(&executor, INTERNAL_NAME)));
}

/// After a SIGKILL it takes two seconds until the heartbeat is stale. Until then queries go to
/// closed ports, and pending queries are lost; a retry after that is answered.
#[test]
fn after_a_kill_under_load_the_first_retry_is_answered() {
    let mut job = Job::with_config(CONFIG);
    let executor = pod(&job, "stranger", ONE);
    assert!(is_vip(&address(&executor, INTERNAL_NAME)));
    let (report, [_, resolver, pod]) = load_across(&mut job, &executor, 3000, |job| {
        job.agent.sigkill().unwrap();
        std::thread::sleep(Duration::from_millis(2500));
        job.agent.restart().unwrap();
    });
    assert!(
        report.lost <= resolver.to_a_full_socket + pod.to_a_full_socket,
        "{report:?}\n{}",
        job.agent.log_tail()
    );
    assert!(report.retried + report.refused > 0, "{report:?}");
    // It resumes when the new agent has lived for ten seconds.
    until("interception to resume", LIMIT, || Ok(is_vip(&address(&executor, INTERNAL_NAME))))
        .unwrap();
}

#[test]
fn an_ipv6_resolver_without_an_ipv6_shim_is_reported() {
    let config = CONFIG.replace("\"203.0.113.55\"", "\"fd00:53::53\"");
    let job = Job::with_config(&config);
    let output = job.cli(&["status"]);
    assert!(
        output.stdout.contains("queries to fd00:53::53 are not intercepted")
            && output.stdout.contains("add an address of its family"),
        "{}",
        output.text()
    );
}

/// Without a list, the host's nameservers are those that most executors use.
#[test]
fn the_hosts_nameservers_are_the_default() {
    let config = format!("[dns]\nintercept = \"sockets\"\n{ROUTE}");
    let job = Job::prepared(&config, |rig| {
        rig.node.sandbox().write("/etc/resolv.conf", &format!("nameserver {ONE}\n")).unwrap()
    });
    assert!(is_vip(&address(&pod(&job, "stranger", ONE), INTERNAL_NAME)));
    assert_eq!(job.json(&["status"])["dns"]["interception"]["resolvers"][0]["address"], ONE);
}

#[test]
fn off_intercepts_nothing_and_status_shows_it() {
    let job = Job::with_config(&format!("{ROUTE}[dns]\nintercept = \"off\"\n"));
    let executor = pod(&job, "stranger", ONE);
    assert_eq!(address(&executor, INTERNAL_NAME), "");
    let status = job.cli(&["status"]);
    assert!(
        status.status.success() && status.stdout.contains("off: dns.intercept is \"off\""),
        "{}",
        status.text()
    );
    let checked = |more: &str| {
        let file = job.rig.files().join("check.toml");
        std::fs::write(&file, more).unwrap();
        let check = job.cli(&["check", "--config", file.to_str().unwrap(), "-o", "json"]);
        let report: serde_json::Value = serde_json::from_str(&check.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", check.text()));
        let found = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["name"] == "dns_intercept")
            .cloned();
        found.unwrap()["detail"].as_str().unwrap().to_owned()
    };
    for (more, words) in [
        ("[dns]\nintercept = \"off\"\n", "off: dns.intercept is `off`"),
        ("[dns]\nlisten = []\n", "mapped names are answered by packet"),
        ("[dns]\nintercept = \"packets\"\n", "mapped names are answered by packet"),
        (
            "[dns]\nintercept = \"sockets\"\nintercept_resolvers = [\"10.96.0.10\"]\n",
            "DNS to 10.96.0.10 goes to the shim",
        ),
        ("[dns]\nintercept = \"sockets\"\n", "DNS to this host's nameservers goes to the shim"),
    ] {
        assert!(checked(more).contains(words), "{more}: {}", checked(more));
    }
}

/// As with a second agent, or a cache, between an executor and the shim.
#[test]
fn the_address_of_another_route_in_an_answer_is_named() {
    let job = Job::with_config(&format!("{ROUTE}[dns]\nintercept = \"off\"\n"));
    job.rig
        .customer
        .sandbox()
        .run(&format!("ip addr add {}/24 dev public", TWO.0), LIMIT)
        .unwrap()
        .success()
        .unwrap();
    let mut command = job.rig.customer.sandbox().command("/usr/bin/python3");
    command.args(["-c", SERVER, TWO.0, "198.18.77.7"]);
    let _server = Running::start(command);
    let sleeper = crate::stage::Sleeper::start(&pod(&job, "second", TWO.0), &[]);
    let words = ["198.18.77.7 is not the virtual address of", "a second agent"];
    crate::stage::assert_cause(
        &job,
        &["verify", INTERNAL_NAME, "--pid", &sleeper.pid()],
        "other_vip",
        &words,
    );
}

#[test]
fn an_occupied_port_is_reported_and_nothing_intercepted() {
    let mut job = Job::with_config(CONFIG);
    job.agent.sigterm().unwrap();
    let mut command = job.rig.node.command("/usr/bin/python3");
    let taker = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
        s.bind(('0.0.0.0', 335)); print('up', flush=True); input()";
    command.args(["-c", taker]).stdin(Stdio::piped());
    let _taker = Running::start(command);
    job.agent.restart().unwrap();
    assert_eq!(address(&pod(&job, "stranger", ONE), INTERNAL_NAME), "");
    let status = job.cli(&["status"]);
    assert!(
        status.stdout.contains("DNS of executors is not intercepted: failed to bind UDP")
            && status.stdout.contains(":335"),
        "{}",
        status.text()
    );
}
