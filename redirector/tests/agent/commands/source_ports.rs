//! Source ports in use: real sockets hold them, `status` and the metrics count them.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use testbed::{
    ExecutorOptions, Network,
    process::{finish, until},
    topology::{INTERNAL_NAME, NODE_ADDRESS, NODE_ADDRESS_2},
};

use crate::rig::{Job, LIMIT};

/// Another route to the same backend, from the node's other address.
const OTHER_NAME: &str = "npm.internal.company.net";
const BACKEND: &str = "203.0.113.7:8080";
/// Connections by the first route, so many that the text of `status` has a line, and by the other.
const MANY: u64 = 1010;
const FEW: u64 = 12;

/// Opens connections and keeps the sockets until its input ends. They end with a reset, which
/// leaves no TIME_WAIT behind.
const HOLD: &str = "\
import socket, struct, sys
held = []
for vip, count in zip(sys.argv[1::2], sys.argv[2::2]):
    for _ in range(int(count)):
        s = socket.create_connection((vip, 8080))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        held.append(s)
print('up', flush=True)
sys.stdin.read()
";

/// A process that holds connections; killed when dropped.
struct Holder(Child);

impl Holder {
    /// Starts it, and waits for its first line.
    fn started(mut command: Command) -> Self {
        let mut holder = Self(command.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config() -> String {
    let route = |name: &str, source: &str| {
        format!(
            "[[routes]]\nsource = \"{name}\"\ndestination = \"203.0.113.7\"\n\
                source_ips = [\"{source}\"]\n"
        )
    };
    route(INTERNAL_NAME, NODE_ADDRESS) + &route(OTHER_NAME, NODE_ADDRESS_2)
}

fn shown(job: &Job) -> Value {
    job.json(&["status"])["datapath"]["source_ports"].clone()
}

fn metrics(job: &Job) -> Vec<String> {
    let page = job.on_node("curl -sS http://127.0.0.1:9464/metrics");
    let samples = page.lines().filter(|line| line.starts_with("redirector_source_ports{"));
    samples.map(str::to_owned).collect()
}

#[test]
fn ports_that_sockets_hold_are_shown_by_source_and_backend() {
    let job = Job::with_config(&config());
    let on_host = ExecutorOptions { network: Network::Host, ..ExecutorOptions::pod("host") };
    let executor = job.rig.executor(on_host).unwrap();
    assert_eq!((shown(&job), metrics(&job)), (Value::Null, Vec::new()));
    let other = job.shell(&format!("getent ahostsv4 {OTHER_NAME} | head -n 1 | cut -d' ' -f1"));
    let mut command = executor.command("/usr/bin/python3");
    let pairs = [job.vip(), MANY.to_string(), other.trim().to_owned(), FEW.to_string()];
    command.args(["-c", HOLD]).args(pairs).stdin(Stdio::piped()).stdout(Stdio::piped());
    let holder = Holder::started(command);
    let expected = json!([
        {"source": NODE_ADDRESS, "backend": BACKEND, "ports": MANY},
        {"source": NODE_ADDRESS_2, "backend": BACKEND, "ports": FEW},
    ]);
    assert_eq!(shown(&job), expected);
    let sample = |source: &str, ports: u64| {
        format!("redirector_source_ports{{source=\"{source}\",backend=\"{BACKEND}\"}} {ports}.0")
    };
    // A page that took long is handed out for some seconds.
    until("a later page", LIMIT, || Ok(!metrics(&job).is_empty())).unwrap();
    let mut samples = metrics(&job);
    samples.sort();
    assert_eq!(samples, [sample(NODE_ADDRESS, MANY), sample(NODE_ADDRESS_2, FEW)]);
    let text = job.cli(&["status"]).stdout;
    let line = format!("{MANY} in use from {NODE_ADDRESS} to {BACKEND}");
    assert!(text.contains(&line) && !text.contains(NODE_ADDRESS_2), "{text}");
    drop(holder);
    let none_is_shown = || Ok(shown(&job).is_null() && metrics(&job).is_empty());
    until("the ports to be free", LIMIT, none_is_shown).unwrap();
}

/// More than a list of sockets for a person has.
const TOO_MANY_TO_LIST: u64 = 17_000;

/// Opens and closes connections one after the other. The server never accepts them, so this takes a
/// second, and each port waits for the server's end.
const USE_UP: &str = "\
import socket, sys
for _ in range(int(sys.argv[2])):
    socket.create_connection((sys.argv[1], 9000)).close()
";
const QUEUE: &str = "\
import socket, sys
s = socket.socket()
s.bind(('203.0.113.7', 9000))
s.listen(65535)
print('up', flush=True)
sys.stdin.read()
";

#[test]
fn all_ports_in_use_are_counted() {
    let job = Job::with_config(&config());
    let customer = job.rig.customer.sandbox();
    customer.run("echo 65535 >/proc/sys/net/core/somaxconn", LIMIT).unwrap().success().unwrap();
    let mut queue = customer.command("/usr/bin/python3");
    queue.args(["-c", QUEUE]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let _queue = Holder::started(queue);
    let on_host = ExecutorOptions { network: Network::Host, ..ExecutorOptions::pod("host") };
    let executor = job.rig.executor(on_host).unwrap();
    let set = "cd /proc/sys/net/ipv4; echo 65536 >tcp_max_tw_buckets; echo 60 >tcp_fin_timeout";
    executor.run(set, LIMIT).unwrap().success().unwrap();
    let mut command = executor.command("/usr/bin/python3");
    command.args(["-c", USE_UP]).args([job.vip(), TOO_MANY_TO_LIST.to_string()]);
    finish(command, LIMIT).unwrap().success().unwrap();
    let backend = BACKEND.replace("8080", "9000");
    let expected = json!([
        {"source": NODE_ADDRESS, "backend": backend, "ports": TOO_MANY_TO_LIST},
    ]);
    assert_eq!(shown(&job), expected);
    let ports = format!("backend=\"{backend}\"}} {TOO_MANY_TO_LIST}.0");
    assert!(metrics(&job)[0].ends_with(&ports), "{:?}", metrics(&job));
}
