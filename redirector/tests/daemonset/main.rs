//! `deploy/daemonset.yaml` on a node: its pod, exactly as in the manifest, run by podman next to an
//! executor's container in a kubepods cgroup.
//!
//! The node is the test bed's, so "the host's network" is a namespace of the test's own, and
//! `/sys/fs/cgroup` a directory of its own. The image is the archive that `cargo xtask image` left.
//! [`Pod::of_manifest`] does what podman, unlike a kubelet, cannot.

mod kubelet;

use std::time::Duration;

use kubelet::{Container, Kubelet};
use testbed::topology::{INTERNAL_NAME, LOAD_BALANCERS};
use testbed::{ExecutorOptions, Rig};

/// The pool, which contains the routes' virtual addresses.
const POOL: &str = "198.18.";
const CAPABILITIES: &str = "0000008000001400";

/// One test, since starting the node takes most of the time; its order is that of an operator's
/// checks.
#[test]
fn the_manifests_pod_redirects_also_after_it_is_killed() {
    let rig = Rig::new().unwrap();
    let _dns = rig.customer.dns_server().unwrap();
    let _balancers =
        [rig.customer.load_balancer(1).unwrap(), rig.customer.load_balancer(2).unwrap()];
    let kubelet = Kubelet::new(&rig).unwrap();
    let pod = kubelet.play().unwrap();

    // The manifest's probe, as the kubelet would run it.
    pod.wait_for(&["redirector", "ready"], Duration::from_secs(60)).unwrap();
    let listed = pod
        .wait_for(&["redirector", "route", "list", "-o", "json"], Duration::from_secs(60))
        .unwrap();
    assert!(listed.contains(INTERNAL_NAME), "{listed}");
    pod.wait_for(&["redirector", "status"], Duration::from_secs(20)).unwrap();
    assert_eq!(
        pod.capabilities().unwrap(),
        CAPABILITIES,
        "other than CAP_BPF, CAP_NET_ADMIN and CAP_NET_BIND_SERVICE"
    );

    let network = rig.executor(ExecutorOptions::pod("job")).unwrap();
    let executor = Container { network: &network, cgroup: "/kubepods/burstable/podjob" };
    let outside = Container { network: &network, cgroup: "/system.slice/other" };

    let looked_up = kubelet.run(&executor, &["nslookup", "-type=a", INTERNAL_NAME]).unwrap().text();
    let vip = looked_up
        .split_whitespace()
        .find(|word| word.starts_with(POOL))
        .unwrap_or_else(|| panic!("no address of the pool: {looked_up}"));
    let greeting = kubelet
        .run(&executor, &["wget", "-q", "-O", "-", &format!("http://{INTERNAL_NAME}:8080/")])
        .unwrap()
        .stdout;
    assert!(greeting == "lb1\n" || greeting == "lb2\n", "{greeting}");
    let refused = kubelet
        .run(&outside, &["wget", "-q", "-T", "5", "-O", "-", &format!("http://{vip}:8080/")])
        .unwrap();
    assert!(
        !refused.status.success(),
        "a container outside kubepods was redirected: {}",
        refused.text()
    );
    let direct = kubelet
        .run(&outside, &["wget", "-q", "-O", "-", &format!("http://{}:8080/", LOAD_BALANCERS[0])])
        .unwrap();
    assert_eq!(direct.stdout, "lb1\n", "the container outside kubepods has no network at all");

    pod.kill().unwrap();
    let kept = kubelet
        .run(&executor, &["wget", "-q", "-O", "-", &format!("http://{vip}:8080/")])
        .unwrap()
        .stdout;
    assert!(kept == "lb1\n" || kept == "lb2\n", "with the pod gone: {kept}");
    assert_eq!(rig.customer.leaked_packets().unwrap(), 0, "packets for the pool left the node");
}
