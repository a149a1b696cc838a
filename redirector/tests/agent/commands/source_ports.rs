//! Source ports in use: real sockets hold them, `status` and the metrics count them.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use serde_json::{Value, json};
use testbed::{
    ExecutorOptions, Network,
    process::until,
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
    let mut holder = Holder(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    let expected = json!([
        {"source": NODE_ADDRESS, "backend": BACKEND, "ports": MANY},
        {"source": NODE_ADDRESS_2, "backend": BACKEND, "ports": FEW},
    ]);
    assert_eq!(shown(&job), expected);
    let sample = |source: &str, ports: u64| {
        format!("redirector_source_ports{{source=\"{source}\",backend=\"{BACKEND}\"}} {ports}.0")
    };
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
