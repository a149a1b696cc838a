//! The guard route: a connect to a VIP that no hook redirects fails at once, and no packet leaves
//! the node.

use std::time::Instant;

use rustix::process::Signal;
use testbed::{
    Sandbox,
    process::{Finished, until},
};

use crate::rig::{Job, LIMIT};

fn connect(sandbox: &Sandbox, vip: &str) -> (Finished, u128) {
    let began = Instant::now();
    let finished =
        sandbox.run(&format!("curl -sS --connect-timeout 10 http://{vip}:443/"), LIMIT).unwrap();
    (finished, began.elapsed().as_millis())
}

#[test]
fn without_a_hook_a_connect_to_a_vip_fails_at_once() {
    let job = Job::only_cgroups();
    let vip = job.vip();
    // From a pod's network and from the node's, over TCP and UDP.
    for sandbox in [job.executor.outside(), job.rig.node.sandbox()] {
        let (finished, milliseconds) = connect(sandbox, &vip);
        assert_eq!(finished.status.code(), Some(7), "{}", finished.text());
        assert!(milliseconds < 2000, "took {milliseconds} ms");
        sandbox.run(&format!("echo x > /dev/udp/{vip}/443"), LIMIT).unwrap();
    }
    assert_eq!(job.rig.customer.leaked_packets().unwrap(), 0);
}

/// Connects to 200 addresses of the pool in a row, and prints how each failed, and the longest time
/// in milliseconds.
const CONNECTS: &str = "\
import errno, socket, sys, time
errors, longest = {}, 0
for n in range(200):
    began = time.monotonic()
    try:
        socket.create_connection((sys.argv[1] % (n + 1), 443), 10)
        error = 'connected'
    except OSError as failure:
        error = errno.errorcode.get(failure.errno, 'timeout')
    longest = max(longest, time.monotonic() - began)
    errors[error] = errors.get(error, 0) + 1
print(errors, int(longest * 1000))
";

/// Listens at port 443 of every address, and drops what comes in from pods, as many firewalls do.
const HOSTILE: &str = "\
python3 -c \"import socket, time
held = []
for family, any in (2, '0.0.0.0'), (10, '::'):
    one = socket.socket(family)
    if family == 10: one.setsockopt(41, 26, 1)
    one.bind((any, 443)); one.listen(300); held.append(one)
time.sleep(60)\" >/dev/null 2>&1 &
nft add table inet firewall
nft 'add chain inet firewall input { type filter hook input priority 0; }'
nft 'add rule inet firewall input iifname pod1 meta l4proto tcp drop'
nft 'add chain inet firewall forward { type filter hook forward priority 0; policy drop; }'
sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv6.conf.pod1.disable_ipv6=0
ip -6 address add fd00:77::1/64 dev pod1 nodad";

#[test]
fn two_hundred_connects_in_a_row_are_reset_at_once() {
    let documented = testbed::agent::documented_config().unwrap();
    let config = documented.replace("interfaces = [\"auto\"]", "interfaces = \"off\"");
    let job = Job::with_config(&config.replace("# ipv6 =", "ipv6 ="));
    job.on_node(HOSTILE);
    let pod = job.executor.outside();
    let addresses = "sysctl -qw net.ipv6.conf.all.disable_ipv6=0; \
         dev=$(ip -o -4 route show default | sed 's/.* dev \\([^ ]*\\).*/\\1/'); \
         ip -6 address add fd00:77::2/64 dev $dev nodad; \
         ip -6 route add default via fd00:77::1";
    pod.run(addresses, LIMIT).unwrap().success().unwrap();
    let connects = |sandbox: &Sandbox, pool: &str, expected: &str| {
        let line = format!("python3 - '{pool}' <<'END'\n{CONNECTS}END");
        let output = sandbox.run(&line, LIMIT).unwrap().success().unwrap().stdout;
        let longest: u64 = output.trim().rsplit(' ').next().unwrap().parse().unwrap();
        println!("{pool}: {output}");
        assert!(output.starts_with(&format!("{{'{expected}': 200}}")), "{pool}: {output}");
        // A lost answer would cost a second, when the kernel sends the SYN again.
        assert!(longest < 900, "{pool}: {output}");
    };
    for pool in ["198.18.0.%d", "fd00:198:18::%x"] {
        connects(pod, pool, "ECONNREFUSED");
        connects(job.rig.node.sandbox(), pool, "EHOSTUNREACH");
    }
    // Another program empties the tables of netfilter.
    job.on_node("nft flush ruleset");
    let rules = || job.on_node("nft list ruleset").matches("reject with tcp reset").count();
    until("the guard's resets to be restored", LIMIT, || Ok(rules() == 2)).unwrap();
    connects(pod, "198.18.0.%d", "ECONNREFUSED");
    assert_eq!(job.rig.customer.leaked_packets().unwrap(), 0);
    let check = job.cli(&["check"]);
    assert!(check.stdout.contains("not redirected get a reset"), "{}", check.text());
    job.on_node("nft flush ruleset");
    until("the guard's resets to be restored", LIMIT, || Ok(rules() == 2)).unwrap();
    let unloaded = job.cli(&["unload", "--force"]);
    assert!(unloaded.status.success() && rules() == 0, "{}", unloaded.text());
}

/// Rules of a container network (EKS has one for each pod), a VPN's table, and a broader route.
#[test]
fn no_other_routing_rule_leaks_the_pool() {
    let config = testbed::agent::documented_config().unwrap();
    let config = config.replace("interfaces = [\"auto\"]", "interfaces = \"off\"");
    let job = Job::prepared(&config, |rig| {
        let rules = "set -- $(ip -4 route show default) && \
             ip route add 198.18.0.0/15 via $3 dev $5 && \
             ip route add default via $3 dev $5 table 2 && \
             ip rule add pref 5 to 198.18.0.0/15 lookup 2 && \
             ip rule add pref 4 iif pod1 lookup 2 && \
             ip route add 198.18.0.0/15 via $3 dev $5 table 51820 && \
             ip rule add pref 1 not fwmark 0xca6c lookup 51820";
        rig.node.sandbox().run(rules, LIMIT).unwrap().success().unwrap();
    });
    let vip = job.vip();
    for sandbox in [job.executor.outside(), job.rig.node.sandbox()] {
        let (finished, milliseconds) = connect(sandbox, &vip);
        assert_eq!(finished.status.code(), Some(7), "{}", finished.text());
        assert!(milliseconds < 2000, "took {milliseconds} ms");
    }
    assert_eq!(job.rig.customer.leaked_packets().unwrap(), 0);
    let check = job.cli(&["check"]);
    assert!(check.stdout.contains("no route of this host overlaps it"), "{}", check.text());
    // `check` asks the kernel where a packet would go. The agent is stopped, or it restored that.
    job.agent.signal(Signal::STOP).unwrap();
    job.on_node("ip rule delete pref 0 to 198.18.0.0/16");
    let check = job.cli(&["check"]);
    job.agent.signal(Signal::CONT).unwrap();
    assert_eq!(check.status.code(), Some(1), "{}", check.text());
    assert!(check.stdout.contains("would leave this host"), "{}", check.text());
}

#[test]
fn the_guard_outlives_the_agent_until_unload() {
    let mut job = Job::new();
    let routes = |job: &Job| {
        job.rig
            .node
            .sandbox()
            .run("ip rule; ip route show table all type unreachable", LIMIT)
            .unwrap()
            .stdout
    };
    let is_guarded = |job: &Job| routes(job).matches("198.18.0.0/16").count() == 2;
    assert!(is_guarded(&job), "{}", routes(&job));
    job.agent.sigkill().unwrap();
    assert!(is_guarded(&job), "{}", routes(&job));
    let unloaded = job.cli(&["unload"]);
    assert!(unloaded.status.success(), "{}", unloaded.text());
    assert!(!routes(&job).contains("198.18."), "{}", routes(&job));
    let addresses = job.rig.node.sandbox().run("ip -o addr show lo", LIMIT).unwrap().stdout;
    assert!(!addresses.contains("169.254.20.53"), "{addresses}");
}
