//! Executors that ask other nameservers than the shim, from the job to the shim and back.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use xtask::testbed::{
    Executor, ExecutorOptions, ResolvConf,
    customer::INTERNAL_NAME,
    dns_server::{UNRELATED_ADDRESS, UNRELATED_NAME},
    process,
};

use crate::rig::{Job, LIMIT};

const CONFIG: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";

/// The customer's DNS server, which refuses the internal name, and another one that answers everything with an address of its own.
const ONE: &str = "203.0.113.53";
const TWO: (&str, Ipv4Addr) = ("203.0.113.54", Ipv4Addr::new(192, 0, 2, 81));

/// Answers each query for an A record with the address that it is given.
const SERVER: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
print('up', flush=True)
while True:
    query, client = s.recvfrom(4096)
    end = query.index(0, 12) + 5
    is_a = query[end - 4:end] == bytes([0, 1, 0, 1])
    answer = bytes([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]) + socket.inet_aton(sys.argv[2]) if is_a else b''
    s.sendto(query[:2] + bytes([0x81, 0x80, 0, 1, 0, int(is_a), 0, 0, 0, 0]) + query[12:end] + answer, client)
";

/// Sends numbered queries at a rate, each from an unconnected socket, and asks once more, a second later, when one has no answer. Prints `half` when
/// half of them are sent; in the end how many were sent, how many were asked twice, and how many had no answer even then.
const LOAD: &str = "
import select, socket, struct, sys, time
server, rate, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
names = [b''.join(bytes([len(label)]) + label for label in name.encode().split(b'.')) + b'\\0' for name in sys.argv[4:]]
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(8)]
for s in sockets: s.setblocking(False)
waiting, sent, again, lost, began, due = {}, 0, 0, 0, time.monotonic(), []
def ask(number):
    query = struct.pack('!HHHHHH', number & 0xffff, 0x100, 1, 0, 0, 0) + names[number % len(names)] + bytes([0, 1, 0, 1])
    try: sockets[number % 8].sendto(query, (server, 53))
    except OSError: pass
while sent < count or waiting:
    now = time.monotonic()
    while sent < count and sent < (now - began) * rate:
        assert sent & 0xffff not in waiting
        waiting[sent & 0xffff] = (sent, 1)
        due.append((now + 1, sent))
        ask(sent)
        sent += 1
        if sent == count // 2: print('half', flush=True)
        if sent % 64 == 0: break
    # Not all at once: what a server's socket has no room for is lost whoever the server is.
    for _ in range(64):
        if not due or due[0][0] > now: break
        number = due.pop(0)[1]
        if waiting.get(number & 0xffff, (None,))[0] != number: continue
        if waiting[number & 0xffff][1] == 2:
            lost += 1
            del waiting[number & 0xffff]
        else:
            again += 1
            waiting[number & 0xffff] = (number, 2)
            ask(number)
            due.append((now + 4, number))
            due.sort()
    for s in select.select(sockets, [], [], 0.0005)[0]:
        for _ in range(64):
            try: reply, source = s.recvfrom(4096)
            except BlockingIOError: break
            assert source == (server, 53), source
            waiting.pop(struct.unpack('!H', reply[:2])[0], None)
print(sent, again, lost)
";

fn pod(job: &Job, name: &str, nameserver: &str) -> Executor {
    job.rig.executor(ExecutorOptions { resolv: ResolvConf::of(nameserver), ..ExecutorOptions::pod(name) }).unwrap()
}

/// What glibc says of a name, or nothing.
fn address(executor: &Executor, name: &str) -> String {
    let finished = executor.run(&format!("getent ahostsv4 {name} | head -n 1 | cut -d' ' -f1"), LIMIT).unwrap();
    finished.stdout.trim().to_owned()
}

fn is_vip(address: &str) -> bool {
    address.starts_with("198.18.")
}

/// A program with its first line read, until it is dropped.
struct Running(Child);

impl Running {
    fn start(mut command: std::process::Command) -> (Self, BufReader<std::process::ChildStdout>) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(["up\n", "half\n"].contains(&line.as_str()), "{line}");
        (Self(child), lines)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_client_gets_the_vip_and_its_own_servers_answers_and_is_told_that_the_server_answered() {
    let job = Job::with_config(CONFIG);
    let executor = pod(&job, "stranger", ONE);
    let vip = address(&executor, INTERNAL_NAME);
    assert!(is_vip(&vip), "{vip:?}\n{}", job.agent.log_tail());
    assert_eq!(address(&executor, UNRELATED_NAME), UNRELATED_ADDRESS.to_string());
    for options in ["", "+tcp", "+dnssec +bufsize=1232"] {
        let told = executor.run(&format!("dig {options} {INTERNAL_NAME} A"), LIMIT).unwrap().success().unwrap().stdout;
        assert!(told.contains(&vip) && told.contains(&format!("SERVER: {ONE}#53")), "{options}: {told}");
        let told = executor.run(&format!("dig +short {options} {UNRELATED_NAME} A"), LIMIT).unwrap().success().unwrap().stdout;
        assert_eq!(told.trim(), UNRELATED_ADDRESS.to_string(), "{options}");
    }
    let status = job.json(&["status"]);
    let interception = &status["dns"]["interception"];
    assert!(interception["on"] == true && interception["resolvers"][0]["address"] == ONE, "{interception}");
    assert!(job.cli(&["status"]).stdout.contains(&format!("the DNS of executors; asked: {ONE} (")));
    // What nothing is attached to is not intercepted: the server itself refuses the name.
    let outside = executor.outside().run(&format!("dig {INTERNAL_NAME} A"), LIMIT).unwrap().stdout;
    assert!(outside.contains("REFUSED"), "{outside}");
}

/// As c-ares, Go and musl do it: the first two check where an answer came from, musl's socket is not connected.
#[test]
fn a_static_musl_client_and_a_connected_one_that_checks_its_peer() {
    let job = Job::with_config(CONFIG);
    let executor = pod(&job, "stranger", ONE);
    let (source, client) = (executor.place().home().join("ask.c"), executor.place().home().join("ask"));
    executor.place().write(&source, ASK).unwrap();
    let mut compiler = xtask::testbed::packages::tool("musl-gcc").unwrap();
    compiler.args(["-static", "-O1", "-o"]).arg(&client).arg(&source);
    process::finish(compiler, LIMIT).unwrap().success().unwrap();
    let seen = executor.run(&format!("{} {INTERNAL_NAME} {UNRELATED_NAME}", client.display()), LIMIT).unwrap().success().unwrap().stdout;
    assert_eq!(seen, format!("{}\n{UNRELATED_ADDRESS}\n", address(&executor, INTERNAL_NAME)));
}

const ASK: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_INET}, *found;
        int error = getaddrinfo(argv[i], "443", &hints, &found);
        if (error) { puts(gai_strerror(error)); continue; }
        puts(inet_ntoa(((struct sockaddr_in *)found->ai_addr)->sin_addr));
    }
    return 0;
}
"#;

#[test]
fn two_pods_with_different_resolvers_each_get_the_answers_of_their_own() {
    let job = Job::with_config(CONFIG);
    job.rig.customer.place().run(&format!("ip addr add {}/24 dev public", TWO.0), LIMIT).unwrap().success().unwrap();
    let mut command = job.rig.customer.place().command("/usr/bin/python3");
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
fn with_the_agent_dead_names_resolve_at_the_original_server_after_two_seconds() {
    let mut job = Job::with_config(CONFIG);
    let executor = pod(&job, "stranger", ONE);
    assert!(is_vip(&address(&executor, INTERNAL_NAME)));
    job.agent.sigkill().unwrap();
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(address(&executor, UNRELATED_NAME), UNRELATED_ADDRESS.to_string());
    assert_eq!(address(&executor, INTERNAL_NAME), "");
    job.agent.restart().unwrap();
    assert!(is_vip(&address(&executor, INTERNAL_NAME)), "{}", job.agent.log_tail());
    // When it is told to end it lets go at once.
    job.agent.sigterm().unwrap();
    assert_eq!(address(&executor, UNRELATED_NAME), UNRELATED_ADDRESS.to_string());
}

#[test]
fn restarted_under_five_thousand_queries_a_second_no_query_waits_longer_than_its_first_retry() {
    let mut job = Job::with_config(CONFIG);
    let executor = pod(&job, "stranger", ONE);
    let mut command = executor.command("/usr/bin/python3");
    command.args(["-c", LOAD, ONE, "5000", "40000", INTERNAL_NAME, UNRELATED_NAME]);
    let (mut load, mut lines) = Running::start(command);
    job.agent.sigterm().unwrap();
    job.agent.restart().unwrap();
    let (began, mut report) = (Instant::now(), String::new());
    lines.read_line(&mut report).unwrap();
    assert!(load.0.wait().unwrap().success(), "{report}");
    let numbers: Vec<u64> = report.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let mut told = String::new();
    let _ = write!(told, "sent, asked twice, lost: {numbers:?}, {:?} after the restart", began.elapsed());
    println!("{told}");
    // A machine that is busy with other things drops packets at any server's socket, so not quite none; a dead shim would lose a quarter.
    assert!(numbers[0] == 40_000 && numbers[2] < 400, "{told}\n{}", job.agent.log_tail());
    assert!(is_vip(&address(&executor, INTERNAL_NAME)));
    let status = job.json(&["status"]);
    assert_eq!(status["dns"]["interception"]["left_alone_crowded"], 0, "{status}");
}

#[test]
fn off_leaves_dns_alone_and_says_so() {
    let job = Job::with_config(&format!("{CONFIG}[dns]\nintercept = \"off\"\n"));
    let executor = pod(&job, "stranger", ONE);
    assert_eq!(address(&executor, INTERNAL_NAME), "");
    let status = job.cli(&["status"]);
    assert!(status.status.success() && status.stdout.contains("nobody's DNS: dns.intercept is \"off\""), "{}", status.text());
}

#[test]
fn a_range_of_ports_that_is_taken_is_passed_over() {
    let mut job = Job::with_config(CONFIG);
    job.agent.sigterm().unwrap();
    let mut command = job.rig.node.command("/usr/bin/python3");
    let taker =
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 5320)); print('up', flush=True); input()";
    command.args(["-c", taker]).stdin(Stdio::piped());
    let _taker = Running::start(command);
    job.agent.restart().unwrap();
    assert!(is_vip(&address(&pod(&job, "stranger", ONE), INTERNAL_NAME)), "{}", job.agent.log_tail());
}
