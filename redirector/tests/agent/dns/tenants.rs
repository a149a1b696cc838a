//! What an unprivileged process in an attached cgroup can do to the DNS of others while DNS is
//! intercepted at sockets. Each attack once worked.

use std::time::Duration;

use testbed::{
    ExecutorOptions, Network, process,
    topology::{INTERNAL_NAME, UNRELATED_ADDRESS, UNRELATED_NAME},
};

use crate::{
    dns::interception::{CONFIG, ONE, Running, SERVER, TWO, address, is_vip, pod},
    rig::{Job, LIMIT},
};

/// Asks for a name from one connected socket, again after a line on standard input.
const VICTIM: &str = "
import socket, sys
def ask(s):
    name = b''.join(bytes([len(l)]) + l.encode() for l in sys.argv[2].split('.'))
    s.send(b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + name + b'\\0\\0\\1\\0\\1')
    return 'right' if socket.inet_aton(sys.argv[3]) in s.recv(512) else 'wrong'
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect((sys.argv[1], 53))
first = ask(s)
print('up', flush=True)
input()
print(first, ask(s), s.getpeername()[0])
";

/// Sends queries for names of its own to a resolver, and waits for no answer.
const FLOOD: &str = "
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', 0))
print('up', flush=True)
for n in range(40000):
    label = b'n%d' % n
    query = b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + bytes([len(label)]) + label
    s.sendto(query + b'\\7example\\0\\0\\1\\0\\1', (sys.argv[1], 53))
    if n % 20 == 0:
        time.sleep(0.005)
";

#[test]
fn a_crowd_of_resolvers_takes_over_no_open_socket() {
    let job = Job::with_config(CONFIG);
    let (victim, tenant) = (pod(&job, "victim", ONE), pod(&job, "tenant", ONE));
    let mut command = victim.command("/usr/bin/python3");
    command
        .args(["-c", VICTIM, ONE, UNRELATED_NAME, &UNRELATED_ADDRESS.to_string()])
        .stdin(std::process::Stdio::piped());
    let socket = Running::start(command);
    let crowd = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        for n in range(1, 255): s.sendto(b'x' * 20, ('203.0.113.%d' % n, 53))";
    let mut command = tenant.command("/usr/bin/python3");
    command.args(["-c", crowd]);
    process::finish(command, LIMIT).unwrap().success().unwrap();
    assert_eq!(
        socket.answer_line(),
        format!("right right {ONE}\n"),
        "the victim's resolver answers its socket, before and after"
    );
    let resolvers = job.json(&["status"])["dns"]["interception"]["resolvers"].clone();
    let addresses: Vec<_> =
        resolvers.as_array().unwrap().iter().map(|at| at["address"].clone()).collect();
    assert_eq!(addresses, [ONE, TWO.0]);
}

#[test]
fn a_silent_resolver_delays_no_look_up_of_others() {
    let job = Job::with_config(CONFIG);
    // A resolver that receives and never answers.
    let silent = format!(
        "ip addr add {}/24 dev public && nft 'add table ip t; \
         add chain ip t i {{ type filter hook input priority 0; }}; \
         add rule ip t i ip daddr {} drop'",
        TWO.0, TWO.0
    );
    job.rig.customer.sandbox().run(&silent, LIMIT).unwrap().success().unwrap();
    let victim = pod(&job, "victim", ONE);
    let tenants = ["one", "two", "three"].map(|name| pod(&job, name, TWO.0));
    let _floods = tenants.each_ref().map(|tenant| {
        let mut command = tenant.command("/usr/bin/python3");
        command.args(["-c", FLOOD, TWO.0]);
        Running::start(command)
    });
    std::thread::sleep(Duration::from_secs(1));
    let look_ups = format!(
        "for n in $(seq 40); do dig +tries=1 +time=1 +short @{ONE} {UNRELATED_NAME} A; done"
    );
    let answers = victim.run(&look_ups, LIMIT).unwrap().stdout;
    let right = answers.lines().filter(|line| *line == UNRELATED_ADDRESS.to_string()).count();
    assert_eq!(right, 40, "{answers}");
    assert!(
        job.json(&["status"])["dns"]["counters"]["overloaded"].as_u64() > Some(0),
        "the flood filled the silent resolver's places"
    );
}

#[test]
fn an_unlisted_resolver_is_not_reached_around_a_policy() {
    let config = CONFIG.replace(", \"203.0.113.55\"", "");
    let job = Job::with_config(&config);
    let add = format!("ip addr add {}/24 dev public", TWO.0);
    job.rig.customer.sandbox().run(&add, LIMIT).unwrap().success().unwrap();
    let mut command = job.rig.customer.sandbox().command("/usr/bin/python3");
    command.args(["-c", SERVER, TWO.0, &TWO.1.to_string()]);
    let _server = Running::start(command);
    let tenant = pod(&job, "tenant", TWO.0);
    let reached = |pod: &testbed::Executor| {
        let dig = format!("dig +tries=1 +time=2 +short @{} www.example.com A", TWO.0);
        pod.run(&dig, LIMIT).unwrap().stdout.contains(&TWO.1.to_string())
    };
    assert!(reached(&tenant), "without a policy");
    // An egress policy that allows nothing but the cluster's resolver and the shim.
    let policy = format!(
        "nft 'add table ip t; add chain ip t o {{ type filter hook output priority 0; }}; \
         add rule ip t o udp dport 53 ip daddr != {ONE} drop; \
         add rule ip t o tcp dport 53 ip daddr != {ONE} drop'"
    );
    tenant.run(&policy, LIMIT).unwrap().success().unwrap();
    assert!(!reached(&tenant), "the node forwards to no resolver that a tenant names");
    assert!(is_vip(&address(&pod(&job, "allowed", ONE), INTERNAL_NAME)));
}

#[test]
fn no_tenant_takes_the_shims_ports_between_two_agents() {
    let mut job = Job::with_config(CONFIG);
    let tenant = job
        .rig
        .executor(ExecutorOptions { network: Network::Host, ..ExecutorOptions::pod("host") })
        .unwrap();
    job.agent.sigkill().unwrap();
    let take = "import os, socket\nos.setgid(65534)\nos.setuid(65534)\n\
        for port in [53, *range(334, 342)]:\n\
        \x20 for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):\n\
        \x20   for address in ('169.254.20.53', '0.0.0.0'):\n\
        \x20     try: socket.socket(socket.AF_INET, kind).bind((address, port)); print('taken')\n\
        \x20     except PermissionError: print('refused')";
    let mut command = tenant.command("/usr/bin/python3");
    command.args(["-c", take]);
    let finished = process::finish(command, LIMIT).unwrap().success().unwrap();
    assert_eq!(finished.stdout, "refused\n".repeat(9 * 2 * 2));
    job.agent.restart().unwrap();
    let stranger = pod(&job, "stranger", ONE);
    process::until("interception to resume", LIMIT, || {
        Ok(is_vip(&address(&stranger, INTERNAL_NAME)))
    })
    .unwrap();
}
