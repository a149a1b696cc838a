//! Clients that hold connections open, and a process without a free descriptor.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::rig::Job;

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

#[test]
fn without_a_free_descriptor_dns_still_answers() {
    let job = Job::new();
    let pid = job.agent.pid().to_string();
    let used = descriptors(&job).to_string();
    let limit = format!("--nofile={used}:{used}");
    let limited = std::process::Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(limited.unwrap().success());
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
