//! Clients that hold connections open, and a process without a free descriptor.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Stdio,
    time::{Duration, Instant},
};

use testbed::{Rig, agent::CONFIG_PATH, process::until, topology::DNS_ADDRESS};

use crate::rig::{Job, LIMIT, binary};

const ADMIN: &str = "127.0.0.1:9464";
/// More than there is room for, and fewer than this process may have.
const HALF_REQUESTS: usize = 600;

fn descriptors(job: &Job) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", job.agent.pid())).unwrap().count()
}

/// Connections to the admin listener from the node, each with half a request.
fn half_requests(job: &Job, count: usize) -> Vec<TcpStream> {
    let namespaces = job.rig.node.sandbox().namespaces();
    let connect = || {
        let mut stream = TcpStream::connect(ADMIN).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost:").unwrap();
        stream
    };
    namespaces.run(|| (0..count).map(|_| connect()).collect()).unwrap()
}

fn healthz(job: &Job) -> String {
    let namespaces = job.rig.node.sandbox().namespaces();
    namespaces
        .run(|| {
            let mut stream = TcpStream::connect(ADMIN).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).unwrap();
            String::from_utf8_lossy(&head).into_owned()
        })
        .unwrap()
}

/// Once 16,800 of these ended in an out-of-memory kill.
#[test]
fn half_requests_leave_descriptors_and_health() {
    let job = Job::new();
    let before = descriptors(&job);
    let held = half_requests(&job, HALF_REQUESTS);
    assert_eq!(healthz(&job), "HTTP/1.1 200");
    let during = descriptors(&job);
    assert!(during < before + 150, "{before} descriptors, then {during}");
    drop(held);
}

/// Resident memory of the agent in MiB.
fn memory(job: &Job) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", job.agent.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Opens connections to the shim, and sends on each as much of long queries for an unrelated name
/// as it takes, until its input ends.
const LONG_QUERIES: &str = "\
import socket, struct, sys
name = b''.join(bytes([len(l)]) + l for l in b'www.example.test'.split(b'.')) + b'\\0'
padding = struct.pack('!HH', 12, 60000) + bytes(60000)
opt = struct.pack('!BHHIH', 0, 41, 1232, 0, len(padding)) + padding
query = struct.pack('!6H', 7, 256, 1, 0, 0, 1) + name + struct.pack('!2H', 1, 1) + opt
message = struct.pack('!H', len(query)) + query
held = []
for _ in range(600):
    s = socket.create_connection(('169.254.20.53', 53))
    s.settimeout(0.01)
    held.append(s)
    try:
        for _ in range(100): s.sendall(message)
    except OSError: pass
print('up', flush=True)
sys.stdin.read()
";

/// On the DNS listener, the admin listener and the control socket.
#[test]
fn one_peer_takes_little_memory_on_each_listener() {
    let job = Job::new();
    job.rig.customer.silence(DNS_ADDRESS.parse().unwrap()).unwrap();
    let before = memory(&job);
    let mut command = job.executor.command("/usr/bin/python3");
    command.args(["-c", LONG_QUERIES]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let namespaces = job.rig.node.sandbox().namespaces();
    let head = [&b"GET /healthz HTTP/1.1\r\nx: "[..], &[b'x'; 15_000]].concat();
    let held = || {
        let tcp = (0..HALF_REQUESTS).map(|_| {
            let mut stream = TcpStream::connect(ADMIN).unwrap();
            let _ = stream.write_all(&head);
            OwnedFd::from(stream)
        });
        let control = (0..HALF_REQUESTS).map(|_| {
            let mut stream = UnixStream::connect("/run/redirector/control.sock").unwrap();
            let _ = stream.write_all(&head);
            OwnedFd::from(stream)
        });
        tcp.chain(control).collect::<Vec<_>>()
    };
    let held = namespaces.run(held).unwrap();
    let during = memory(&job);
    println!("{before} MiB, then {during} MiB");
    assert_eq!(line, "up\n");
    assert!(during < before + 96, "{before} MiB, then {during} MiB");
    assert_eq!(healthz(&job), "HTTP/1.1 200");
    let _ = job.vip();
    assert_eq!(job.cli(&["status"]).status.code().map(|code| code < 2), Some(true));
    drop(held);
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn without_a_free_descriptor_dns_still_answers() {
    let job = Job::new();
    job.limit_descriptors(descriptors(&job));
    // They wait to be accepted.
    let _held = half_requests(&job, 20);
    let began = Instant::now();
    let answers = job.shell(
        "for i in 1 2 3 4 5 6 7 8; do getent ahostsv4 artifactory.public.company.net & done; wait",
    );
    assert_eq!(answers.matches("STREAM").count(), 16, "{answers}");
    let _ = job.vip();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

/// A full disk, or a terminal that is gone.
#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let rig = Rig::new().unwrap();
    let _dns = rig.customer.dns_server().unwrap();
    let files = rig.node.sandbox();
    files
        .write(CONFIG_PATH, "[[routes]]\nsource = \"a.b\"\ndestination = \"203.0.113.7\"\n")
        .unwrap();
    let mut command = files.command("/bin/sh");
    command.args(["-c", "exec \"$0\" run 2>/dev/full"]).arg(binary());
    let mut agent = command.spawn().unwrap();
    let status = || rig.node.cli(binary(), &["status"]).unwrap();
    until("the agent to serve", LIMIT, || Ok(status().status.code() == Some(0))).unwrap();
    let add = ["route", "add", "c.d", "203.0.113.8"];
    rig.node.cli(binary(), &add).unwrap().success().unwrap();
    let pid = rustix::process::Pid::from_child(&agent);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(agent.wait().unwrap().success());
}
