//! The removal of what was installed, and that nothing of it is left.

use serde_json::json;
use testbed::process::until;

use crate::stage::{LIMIT, Stage};

/// What an agent has on its node: pins, files, an address, routes and rules.
const LEFT: &str = "ls -A --ignore '*.debug' /sys/fs/bpf; \
    find /var/lib/redirector /run/redirector -type f; ip -4 addr show dev lo | grep 169.254; \
    ip route show table all | grep 198.18; ip rule show";
/// What the chart makes.
const OBJECTS: [&str; 5] = ["get", "all,cm,sa,clusterrole,clusterrolebinding", "-A", "-o", "name"];

/// As docs/operator.md states.
pub(crate) fn leaves_nothing(stage: &Stage) {
    let unload = json!({"unload": {"enabled": true, "pauseImage": cluster::TOOLS_IMAGE}});
    stage.helm().upgrade(&unload).unwrap();
    stage.kubectl().ok(&["-n", "kube-system", "rollout", "status", "ds/redirector"]).unwrap();
    stage.helm().uninstall().unwrap();
    assert_nothing_is_left(stage);
}

/// On the node and in the API, but for custom resources.
pub(crate) fn assert_nothing_is_left(stage: &Stage) {
    let left = stage.cluster.on_node(LEFT).unwrap().text();
    let rules = "0:\tfrom all lookup local\n32766:\tfrom all lookup main\n\
        32767:\tfrom all lookup default\n";
    assert_eq!(left, rules);
    let is_gone = || Ok(!stage.kubectl().ok(&OBJECTS)?.contains("redirector"));
    until("the objects are gone", LIMIT, is_gone).unwrap();
}
