//! Real clients of a pod and of the node's own network, with resolvers that know no mapped name, or
//! that are not there at all.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use redirector::datapath::{InterfaceRole, NameCgroup, cgroup2_mount};
use testbed::{
    Executor, ExecutorOptions, Network, ResolvConf, Sandbox,
    topology::{RESOLVER_ADDRESS, UNRELATED_NAME},
};

use crate::rig::{Bed, LIMIT};

const SOURCE: &str = "artifactory.internal.company.net";
/// Nothing answers there.
const NOBODY: &str = "203.0.113.99";

fn run(sandbox: &Sandbox, line: &str) -> String {
    sandbox.run(line, LIMIT).unwrap().success().unwrap().stdout.trim().to_owned()
}

/// The output of `ask.py`.
fn ask(sandbox: &Sandbox, arguments: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/packets/ask.py");
    run(sandbox, &format!("/usr/bin/python3 {script} {arguments}"))
}

/// A pod on an interface that answers names.
fn pod(bed: &mut Bed) -> Executor {
    let resolv = ResolvConf::of(&RESOLVER_ADDRESS.to_string());
    let options = ExecutorOptions { resolv, ..ExecutorOptions::pod("job") };
    let pod = bed.rig.executor(options).unwrap();
    bed.attach("pod1", InterfaceRole::Guest);
    bed.publish(SOURCE, 7);
    bed.publish("**.wild.company.net", 8);
    pod
}

#[test]
fn a_pod_gets_mapped_names_and_its_resolver() {
    let mut bed = Bed::new();
    let pod = pod(&mut bed);
    let resolver = bed.rig.customer.resolver().unwrap();
    let sandbox = pod.sandbox();
    let vip = format!("0 198.18.0.7 {RESOLVER_ADDRESS}");
    for options in ["", "connected", "offload=off", "connected offload=off"] {
        assert_eq!(ask(sandbox, &format!("{SOURCE} {RESOLVER_ADDRESS} {options}")), vip);
    }
    assert_eq!(
        ask(sandbox, &format!("a.b.wild.company.net {NOBODY}")),
        "0 198.18.0.8 203.0.113.99"
    );
    assert_eq!(
        run(sandbox, &format!("getent ahostsv4 {SOURCE} | head -1 | cut -d' ' -f1")),
        "198.18.0.7"
    );
    let dig = format!("dig +noall +comments +answer +dnssec @{NOBODY} {SOURCE} AAAA");
    assert!(run(sandbox, &dig).contains("fd00:18::7"), "{dig}");
    let dig = run(sandbox, &format!("dig @{NOBODY} {SOURCE} HTTPS"));
    assert!(dig.contains("status: NOERROR") && dig.contains("AUTHORITY: 1"), "{dig}");
    let pointer = run(sandbox, &format!("dig @{NOBODY} +short -x 198.18.0.8"));
    assert_eq!(pointer, "**.wild.company.net.");
    let pointer = run(sandbox, &format!("dig @{NOBODY} +short -x fd00:18::7"));
    assert_eq!(pointer, format!("{SOURCE}."));
    assert_eq!(resolver.times_asked(SOURCE), 0);
    // Everything else is the resolver's, octet for octet.
    let unrelated =
        format!("0 {} {RESOLVER_ADDRESS}", testbed::customer::resolver::address(UNRELATED_NAME));
    assert_eq!(ask(sandbox, &format!("{UNRELATED_NAME} {RESOLVER_ADDRESS}")), unrelated);
    assert_eq!(
        ask(sandbox, &format!("unmapped.company.net {RESOLVER_ADDRESS}")),
        format!("3 none {RESOLVER_ADDRESS}")
    );
    assert_eq!(ask(sandbox, &format!("{UNRELATED_NAME} {NOBODY}")), "silence");
    let errors = run(sandbox, "grep -h '^Udp:' /proc/net/snmp | tail -1");
    assert!(bed.datapath.name_answers(7).unwrap() >= 7, "{errors}");
    assert!(bed.datapath.packet_stats().unwrap().names_reverse >= 2);
    // InCsumErrors is the eighth column.
    assert_eq!(errors.split(' ').nth(7), Some("0"), "{errors}");
}

#[test]
fn a_pod_is_answered_over_ipv6_and_with_its_tag() {
    let mut bed = Bed::new();
    let pod = pod(&mut bed);
    bed.shell("ip addr add fd61::1/64 dev pod1 nodad");
    run(pod.sandbox(), "ip addr add fd61::2/64 dev eth0 nodad");
    let vip = "0 198.18.0.7 fd61::1";
    for options in ["", "connected", "offload=off"] {
        assert_eq!(ask(pod.sandbox(), &format!("{SOURCE} fd61::1 {options}")), vip);
    }
    let mac = bed.shell("ip -o link show pod1 | grep -o 'ether [^ ]*' | cut -d' ' -f2");
    let tagged = ask(pod.sandbox(), &format!("{SOURCE} {NOBODY} tag=77 mac={}", mac.trim()));
    assert_eq!(tagged, format!("0 198.18.0.7 {NOBODY} tag 77"));
}

/// A cgroup and its level below the hierarchy's root.
fn name_cgroup(path: &Path) -> NameCgroup {
    let below = path.strip_prefix(cgroup2_mount().unwrap()).unwrap();
    let level = u32::try_from(below.components().count()).unwrap();
    NameCgroup { id: fs::metadata(path).unwrap().ino(), level: Some(level) }
}

#[test]
fn sockets_of_attached_cgroups_on_the_node_are_answered() {
    let mut bed = Bed::new();
    let resolv = ResolvConf::of(&RESOLVER_ADDRESS.to_string());
    let options =
        ExecutorOptions { resolv, network: Network::Host, ..ExecutorOptions::pod("host") };
    let executor = bed.rig.executor(options).unwrap();
    let resolver = bed.rig.customer.resolver().unwrap();
    let (inside, outside) = (executor.sandbox(), executor.outside());
    bed.shell("ip addr add fd62::1/64 dev uplink nodad");
    bed.shell("ip -6 neigh add fd62::9 lladdr 02:00:00:00:00:09 dev uplink");
    bed.attach("lo", InterfaceRole::Host);
    bed.attach("uplink", InterfaceRole::Host);
    bed.publish(SOURCE, 7);
    let resolver_says = format!("3 none {RESOLVER_ADDRESS}");
    let question = format!("{SOURCE} {RESOLVER_ADDRESS}");
    assert_eq!(ask(inside, &question), resolver_says);
    // The parent of the executor's cgroup.
    bed.datapath.set_name_cgroups(&[name_cgroup(inside.cgroup().parent().unwrap())]).unwrap();
    for server in
        [&RESOLVER_ADDRESS.to_string(), "127.0.0.53", "198.51.100.1", "::1", "fd62::1", "fd62::9"]
    {
        for options in ["", "connected"] {
            let answer = ask(inside, &format!("{SOURCE} {server} {options}"));
            assert_eq!(answer, format!("0 198.18.0.7 {server}"));
        }
    }
    let glibc = run(inside, &format!("getent ahostsv4 {SOURCE} | head -1 | cut -d' ' -f1"));
    assert_eq!(glibc, "198.18.0.7");
    let asked = resolver.times_asked(SOURCE);
    assert_eq!(asked, 1, "before the cgroup was listed");
    // Others, and the agent's own sockets, get the resolver's answer.
    assert_eq!(ask(outside, &question), resolver_says);
    assert_eq!(ask(inside, &format!("{question} mark=53")), resolver_says);
    assert_eq!(resolver.times_asked(SOURCE), asked + 2);
    // As an agent does whose cgroup namespace hides the level.
    let levelled = name_cgroup(inside.cgroup().parent().unwrap());
    bed.datapath.set_name_cgroups(&[NameCgroup { level: None, ..levelled }]).unwrap();
    assert_eq!(ask(inside, &question), format!("0 198.18.0.7 {RESOLVER_ADDRESS}"));
    assert_eq!(ask(outside, &question), resolver_says);
    bed.datapath.set_name_cgroups(&[]).unwrap();
    assert_eq!(ask(inside, &question), resolver_says);
}

#[test]
fn a_socket_of_the_node_is_answered_at_a_guests_interface() {
    let mut bed = Bed::new();
    let _pod = pod(&mut bed);
    let options = ExecutorOptions { network: Network::Host, ..ExecutorOptions::pod("host") };
    let executor = bed.rig.executor(options).unwrap();
    // A resolver in the pod, at which nobody listens.
    let question = format!("{SOURCE} 10.61.1.2");
    let refused = executor
        .sandbox()
        .run(&format!("timeout 3 dig +tries=1 +time=1 @10.61.1.2 {SOURCE} >/dev/null"), LIMIT);
    assert!(!refused.unwrap().status.success());
    bed.datapath.set_name_cgroups(&[name_cgroup(executor.sandbox().cgroup())]).unwrap();
    assert_eq!(ask(executor.sandbox(), &question), "0 198.18.0.7 10.61.1.2");
}
