//! The test bed on the real kernel, without the redirection: the redirector's tests rely on these
//! properties.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use testbed::clients::LoadOptions;
use testbed::clients::LoadProcess;
use testbed::sample_artifacts;
use testbed::topology::{INTERNAL_NAME, LOAD_BALANCERS, PUBLIC_NAME};
use testbed::topology::{UNRELATED_ADDRESS, UNRELATED_NAME};
use testbed::{Executor, ExecutorOptions, Network, ResolvConf, Rig, Sandbox};

const LIMIT: Duration = Duration::from_secs(30);

/// An executor that finds the internal name at load balancer 1 by /etc/hosts, without the
/// redirector.
fn executor_with_hosts(rig: &Rig) -> Executor {
    let executor = rig.executor(ExecutorOptions::pod("one")).unwrap();
    executor
        .sandbox()
        .write("/etc/hosts", &format!("{} {INTERNAL_NAME}\n", LOAD_BALANCERS[0]))
        .unwrap();
    executor
}

fn run(executor: &Executor, line: &str) -> String {
    executor
        .run(line, LIMIT)
        .unwrap()
        .success()
        .unwrap_or_else(|error| panic!("{line}: {error:#}"))
        .stdout
}

#[test]
fn only_the_executors_processes_are_in_its_pods_cgroup() {
    let rig = Rig::new().unwrap();
    let executor = rig.executor(ExecutorOptions::pod("abc")).unwrap();
    let inside = run(&executor, "cat /proc/self/cgroup");
    assert!(inside.contains(&format!("0::/{}/node/kubepods/podabc", rig.name())), "{inside}");
    let outside = executor.outside().run("cat /proc/self/cgroup", LIMIT).unwrap().stdout;
    assert!(outside.contains("/node/system.slice/other.service"), "{outside}");
    assert_eq!(
        executor.outside().run("ip -4 -br addr show eth0", LIMIT).unwrap().stdout,
        run(&executor, "ip -4 -br addr show eth0")
    );
}

#[test]
fn a_nodes_cgroup_root_bpffs_and_state_are_not_the_hosts() {
    let rig = Rig::new().unwrap();
    let executor = rig.executor(ExecutorOptions::pod("abc")).unwrap();
    let mounts = rig.node.sandbox().read("/proc/thread-self/mountinfo").unwrap();
    let cgroups: Vec<&str> = mounts.lines().filter(|line| line.contains(" - cgroup")).collect();
    assert_eq!(cgroups.len(), 1, "{cgroups:?}");
    assert!(
        cgroups[0].contains(" /sys/fs/cgroup ") && cgroups[0].contains("/node "),
        "{cgroups:?}"
    );
    let seen = rig
        .node
        .sandbox()
        .run(
            "ls /sys/fs/cgroup/kubepods; stat -f -c %T /sys/fs/bpf; ls -A /etc/redirector \
            /run/redirector",
            LIMIT,
        )
        .unwrap()
        .stdout;
    assert!(seen.contains("podabc") && seen.contains("bpf"), "{seen}");
    rig.node.sandbox().write("/etc/redirector/redirector.toml", "here").unwrap();
    assert_eq!(rig.node.sandbox().read("/etc/redirector/redirector.toml").unwrap(), "here");
    assert!(
        executor.sandbox().read("/etc/redirector/redirector.toml").is_err(),
        "an executor sees the node's configuration"
    );
    assert!(!Path::new("/etc/redirector/redirector.toml").exists(), "the rig wrote to the host");
}

#[test]
fn load_balancers_admit_the_nodes_address_and_no_other() {
    let rig = Rig::new().unwrap();
    let executor = rig.executor(ExecutorOptions::pod("one")).unwrap();
    let balancer = rig.customer.load_balancer(1).unwrap();
    let greet = "curl -sS --max-time 5 http://203.0.113.7:8080/";
    assert_eq!(run(&executor, greet), "lb1\n");
    let elsewhere = rig.customer.sandbox().run(greet, LIMIT).unwrap();
    assert!(!elsewhere.stdout.contains("lb1"), "{}", elsewhere.text());
    assert!(balancer.denied().unwrap() >= 1);
    assert_eq!(balancer.greeted(), 1);
}

#[test]
fn a_load_balancer_can_be_stopped_silenced_and_restored() {
    let rig = Rig::new().unwrap();
    let executor = rig.executor(ExecutorOptions::pod("one")).unwrap();
    let mut balancer = rig.customer.load_balancer(2).unwrap();
    let greet =
        || executor.run("curl -sS --connect-timeout 0.5 http://203.0.113.8:8080/", LIMIT).unwrap();
    assert_eq!(greet().stdout, "lb2\n");
    balancer.stop().unwrap();
    assert_eq!(greet().status.code(), Some(7), "{}", greet().text());
    balancer.start_again().unwrap();
    assert_eq!(greet().stdout, "lb2\n");
    rig.customer.silence(balancer.address()).unwrap();
    assert_eq!(greet().status.code(), Some(28), "{}", greet().text());
    rig.customer.unsilence(balancer.address()).unwrap();
    assert_eq!(greet().stdout, "lb2\n");
}

#[test]
fn the_public_name_has_both_addresses_and_can_be_changed() {
    let rig = Rig::new().unwrap();
    let mut dns = rig.customer.dns_server().unwrap();
    let ask = |name: &str| {
        rig.node
            .sandbox()
            .run(&format!("getent ahostsv4 {name} | grep STREAM | cut -d' ' -f1 | sort"), LIMIT)
            .unwrap()
            .stdout
    };
    assert_eq!(ask(PUBLIC_NAME), "203.0.113.7\n203.0.113.8\n");
    assert_eq!(ask(UNRELATED_NAME), format!("{UNRELATED_ADDRESS}\n"));
    dns.set_addresses(&[Ipv4Addr::new(203, 0, 113, 8)]).unwrap();
    assert_eq!(ask(PUBLIC_NAME), "203.0.113.8\n");
    dns.set_addresses(&[]).unwrap();
    let empty = rig
        .node
        .sandbox()
        .run(&format!("dig @203.0.113.53 {PUBLIC_NAME} A"), LIMIT)
        .unwrap()
        .stdout;
    assert!(empty.contains("NOERROR") && empty.contains("ANSWER: 0"), "{empty}");
}

#[test]
fn the_registry_serves_curl_skopeo_and_pip_by_internal_name() {
    let rig = Rig::new().unwrap();
    let (registry, balancer) =
        (rig.customer.registry().unwrap(), rig.customer.load_balancer(1).unwrap());
    let executor = executor_with_hosts(&rig);
    let home = executor.sandbox().home();

    let hello = run(&executor, &format!("curl -sS https://{INTERNAL_NAME}/"));
    assert!(hello.contains(INTERNAL_NAME), "{hello}");
    let admitted = balancer.admitted();
    assert!(
        admitted.iter().any(|c| c.server_name.as_deref() == Some(INTERNAL_NAME)
            && c.source.ip().to_string() == "198.51.100.1"),
        "{admitted:?}"
    );

    let pushed = sample_artifacts::image(&home.join("image")).unwrap();
    run(
        &executor,
        &format!(
            "skopeo --insecure-policy copy oci:image:1.0 docker://{INTERNAL_NAME}/team/hello:1.0"
        ),
    );
    run(
        &executor,
        &format!(
            "skopeo --insecure-policy copy docker://{INTERNAL_NAME}/team/hello:1.0 oci:pulled:1.0"
        ),
    );
    assert_eq!(sample_artifacts::image_identity(&home.join("pulled")).unwrap(), pushed);

    run(
        &executor,
        &format!(
            "pip install --index-url https://{INTERNAL_NAME}/simple --target site {}",
            sample_artifacts::PACKAGE.0
        ),
    );
    let output = run(
        &executor,
        "PYTHONPATH=site python -c 'import hello_company; print(hello_company.hello())'",
    );
    assert_eq!(output.trim(), sample_artifacts::PACKAGE_GREETING);
    assert!(
        registry.requests().iter().all(|line| line.starts_with(INTERNAL_NAME)),
        "{:?}",
        registry.requests()
    );
}

#[test]
fn an_executor_sustains_a_thousand_connects_a_second() {
    let rig = Rig::new().unwrap();
    let executor = rig.executor(ExecutorOptions::pod("one")).unwrap();
    let _balancer = rig.customer.load_balancer(1).unwrap();
    let target = SocketAddr::from((LOAD_BALANCERS[0], 8080));
    let options = LoadOptions::greeted_by(&["lb1"], target, 1000, 3.0);
    let report = LoadProcess::start(executor.sandbox(), &options).unwrap().report().unwrap();
    eprintln!("{report:?}");
    assert!(report.flawless(), "{report:?}");
    assert_eq!(report.attempted, 3000);
}

#[test]
fn a_packet_for_the_pool_that_leaves_the_node_is_counted() {
    let rig = Rig::new().unwrap();
    let executor = rig.executor(ExecutorOptions::pod("one")).unwrap();
    assert_eq!(rig.customer.leaked_packets().unwrap(), 0);
    let lost = executor.run("curl -sS --connect-timeout 0.3 http://198.18.0.1/", LIMIT).unwrap();
    assert_eq!(lost.status.code(), Some(28), "{}", lost.text());
    assert!(rig.customer.leaked_packets().unwrap() >= 1);
}

#[test]
fn only_the_node_forwards_whatever_the_host_does() {
    let rig = Rig::new().unwrap();
    let executor = rig.executor(ExecutorOptions::pod("one")).unwrap();
    let forwards = |sandbox: &Sandbox| {
        let done = sandbox.run("cat /proc/sys/net/ipv4/conf/*/forwarding", LIMIT).unwrap();
        done.stdout.split_whitespace().map(|value| value == "1").collect::<Vec<_>>()
    };
    assert!(forwards(executor.sandbox()).iter().all(|forwards| !forwards));
    assert!(forwards(rig.node.sandbox()).iter().all(|forwards| *forwards));
}

#[test]
fn a_host_network_executor_has_the_nodes_addresses() {
    let rig = Rig::new().unwrap();
    let resolv = ResolvConf::kubernetes("169.254.20.53");
    let executor = rig
        .executor(ExecutorOptions {
            network: Network::Host,
            resolv,
            ..ExecutorOptions::pod("host")
        })
        .unwrap();
    let seen = run(&executor, "ip -4 -br addr show uplink; cat /etc/resolv.conf /proc/self/cgroup");
    assert!(
        seen.contains("198.51.100.1/24")
            && seen.contains("ndots:5")
            && seen.contains("/kubepods/podhost"),
        "{seen}"
    );
}

#[test]
fn two_rigs_coexist_and_leave_nothing_behind() {
    let (one, two) = (Rig::new().unwrap(), Rig::new().unwrap());
    let (executor, other) = (
        one.executor(ExecutorOptions::pod("one")).unwrap(),
        two.executor(ExecutorOptions::pod("one")).unwrap(),
    );
    let balancers =
        (one.customer.load_balancer(1).unwrap(), two.customer.load_balancer(1).unwrap());
    for sandbox in [&executor, &other] {
        assert_eq!(run(sandbox, "curl -sS http://203.0.113.7:8080/"), "lb1\n");
    }
    // A process that left its parent, as a daemon does, must go as well.
    run(&executor, "setsid sleep 300 >/dev/null 2>&1 </dev/null & echo $!");
    let cgroup = executor.sandbox().cgroup().to_owned();
    let names = [one.files().to_owned(), two.files().to_owned()];
    drop((executor, other, balancers, one, two));
    assert!(!cgroup.exists(), "{} is still there", cgroup.display());
    for path in names {
        assert!(!path.exists(), "{} is still there", path.display());
    }
}
