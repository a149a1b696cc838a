//! `deploy/daemonset.yaml` on a node: its pod, exactly as in the manifest, run by podman next to an
//! executor's container in a kubepods cgroup.
//!
//! The node is the test bed's, so "the host's network" is a namespace of the test's own, and
//! `/sys/fs/cgroup` a directory of its own. The image is the archive that `cargo xtask image` left.
//! [`Pod::of_manifest`] does what podman, unlike a kubelet, cannot.

mod kubelet;

use std::{fs, process::Command, time::Duration};

use kubelet::{Container, Kubelet};
use testbed::topology::{INTERNAL_NAME, LOAD_BALANCERS};
use testbed::{ExecutorOptions, Rig, capture, workspace};

/// The pool, which contains the routes' virtual addresses.
const POOL: &str = "198.18.";
const CAPABILITIES: &str = "0000008000001400";

#[test]
fn the_image_lists_its_parts() {
    let archive = workspace::image_archive();
    let folder = tempfile::tempdir().unwrap();
    let transport = |kind: &str, path: &std::path::Path| format!("{kind}:{}", path.display());
    let mut copy = Command::new("skopeo");
    copy.args(["copy", "--quiet", &transport("oci-archive", &archive)])
        .arg(transport("dir", folder.path()));
    capture::run(&mut copy, |_| {}).unwrap();
    let read = |name: &str| {
        let file = fs::read(folder.path().join(name)).unwrap();
        serde_json::from_slice::<serde_json::Value>(&file).unwrap()
    };
    let blob = |digest: &serde_json::Value| {
        digest.as_str().and_then(|digest| digest.split(':').nth(1)).unwrap().to_owned()
    };
    let manifest = read("manifest.json");
    let config = read(&blob(&manifest["config"]["digest"]));
    // The same commit gives the same digest, so nothing has a time.
    assert_eq!(config["created"], "1970-01-01T00:00:00Z");
    let labels = &config["config"]["Labels"];
    assert_eq!(labels["org.opencontainers.image.title"], "redirector", "{labels}");

    let layers = manifest["layers"].as_array().unwrap();
    let mut files = String::new();
    for layer in layers {
        let path = folder.path().join(blob(&layer["digest"]));
        files += &capture::run(Command::new("tar").arg("-tf").arg(path), |_| {}).unwrap();
    }
    for file in ["bin/redirector", "share/doc/redirector/sbom.cdx.json"] {
        assert!(files.contains(&format!("usr/{file}\n")), "no {file}: {files}");
    }
    assert!(files.contains("THIRD-PARTY-LICENCES"), "{files}");
}

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
