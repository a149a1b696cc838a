//! A log that nobody reads: the pipe at standard error is full.

use std::{
    io::{BufRead, BufReader, PipeReader, Write},
    mem,
    process::Child,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use testbed::{Executor, ExecutorOptions, Rig, customer::DnsServer, process::until};

use crate::rig::{LIMIT, binary};

/// What a new pipe holds.
const PIPE: usize = 64 << 10;
/// What the log says of lines that it lacks, behind their number.
const GAP: &str = " lines of the log dropped: standard error did not take more";
const LOG_LEVEL: &str = "redirector=debug,redirector::dns::queries=trace";

/// Sends queries to the shim, which logs each.
const QUERIES: &str = "\
import socket
query = b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\1a\\1b\\0\\0\\1\\0\\1'
shim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(200): shim.sendto(query, ('169.254.20.53', 53))
";

struct Job {
    agent: Child,
    log: PipeReader,
    executor: Executor,
    _dns: DnsServer,
    // Last, as the namespaces must outlive their users.
    rig: Rig,
}

impl Job {
    /// An agent whose standard error takes nothing.
    fn new() -> Self {
        let rig = Rig::new().unwrap();
        let executor = rig.executor(ExecutorOptions::pod("job")).unwrap();
        let dns = rig.customer.dns_server().unwrap();
        let config = testbed::agent::documented_config().unwrap();
        rig.node.sandbox().write(testbed::agent::CONFIG_PATH, &config).unwrap();
        let (log, mut full) = std::io::pipe().unwrap();
        full.write_all(&[b'\n'; PIPE]).unwrap();
        let mut command = rig.node.command(binary());
        command.args(["run", "--log-format", "json", "--log-level", LOG_LEVEL]).stderr(full);
        let agent = command.spawn().unwrap();
        let job = Self { agent, log, executor, _dns: dns, rig };
        until("the agent to serve", LIMIT, || {
            Ok(job.rig.node.cli(binary(), &["status"])?.status.success())
        })
        .unwrap();
        job
    }

    fn cli(&self, arguments: &[&str]) {
        self.rig.node.cli(binary(), arguments).unwrap().success().unwrap();
    }

    fn metric(&self, name: &str) -> f64 {
        let page = "curl -s --max-time 10 http://127.0.0.1:9464/metrics";
        let page = self.rig.node.sandbox().run(page, LIMIT).unwrap().success().unwrap().stdout;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name}: {page}"))
    }

    fn dropped(&self) -> f64 {
        self.metric("redirector_log_lines_dropped_total ")
    }

    fn terminate(&mut self) {
        kill_process(Pid::from_child(&self.agent), Signal::TERM).unwrap();
        assert!(self.agent.wait().unwrap().success());
    }
}

/// The lines of the log, read as they come.
struct LogReader {
    lines: Arc<Mutex<Vec<serde_json::Value>>>,
    thread: JoinHandle<()>,
}

impl LogReader {
    fn start(log: PipeReader) -> Self {
        let lines = Arc::default();
        let read: Arc<Mutex<Vec<_>>> = Arc::clone(&lines);
        let thread = thread::spawn(move || {
            let lines = BufReader::new(log).lines().map(Result::unwrap);
            for line in lines.filter(|line| !line.is_empty()) {
                let parsed = serde_json::from_str(&line);
                read.lock().push(parsed.unwrap_or_else(|error| panic!("{error}: {line}")));
            }
        });
        Self { lines, thread }
    }

    /// How many lines the log says that it lacks.
    fn dropped(&self) -> Option<f64> {
        let lines = self.lines.lock();
        let gap = lines.iter().find_map(|line| line["message"].as_str()?.strip_suffix(GAP))?;
        gap.parse().ok()
    }

    /// All lines, once the agent has ended.
    fn into_lines(self) -> Vec<serde_json::Value> {
        self.thread.join().unwrap();
        mem::take(&mut self.lines.lock())
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let mut job = Job::new();
    until("a line without room", LIMIT, || {
        let mut queries = job.rig.node.command("/usr/bin/python3");
        assert!(queries.args(["-c", QUERIES]).status()?.success());
        Ok(job.dropped() > 0.0)
    })
    .unwrap();
    for _ in 0..3 {
        thread::sleep(Duration::from_secs(1));
        assert!(job.metric("redirector_heartbeat_age_seconds ") < 2.0);
    }
    let _balancer = job.rig.customer.load_balancer(1).unwrap();
    job.cli(&["route", "add", "added.company.net", "203.0.113.7", "--port", "8080"]);
    let page = "curl -sS --max-time 10 http://added.company.net:8080/";
    assert_eq!(job.executor.run(page, LIMIT).unwrap().success().unwrap().stdout, "lb1\n");

    let log = LogReader::start(job.log.try_clone().unwrap());
    // A page of metrics is reused for ten times as long as it took.
    until("the log and the metrics to have the same number", LIMIT, || {
        Ok(log.dropped() == Some(job.dropped()))
    })
    .unwrap();
    job.cli(&["reload"]);
    job.cli(&["route", "remove", "added.company.net"]);
    job.terminate();
    let lines = log.into_lines();
    let find = |text: &str| {
        lines.iter().position(|line| line["message"].as_str().unwrap_or_default().contains(text))
    };
    let gap = find(GAP).unwrap();
    let has_route = |line: &serde_json::Value| line.to_string().contains("added.company.net");
    assert!(find("query").is_some_and(|before| before < gap));
    assert!(!lines[..gap].iter().any(has_route), "the gap is where the lines are missing");
    assert!(lines[gap..].iter().any(has_route));
    assert!(find("stopping").is_some_and(|last| last > gap));
}

#[test]
fn an_agent_whose_log_nobody_reads_ends() {
    let mut job = Job::new();
    job.terminate();
}
