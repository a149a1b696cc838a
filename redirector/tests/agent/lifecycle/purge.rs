//! `redirector unload --purge`: what an uninstallation leaves on the node.

use testbed::topology::INTERNAL_NAME;

use crate::rig::Job;

#[test]
fn a_purge_leaves_nothing_and_may_be_repeated() {
    let mut job = Job::new();
    job.cli(&["route", "add", "git.internal.company.net", "192.0.2.1"]).success().unwrap();
    assert!(job.vip().starts_with("198.18."), "{INTERNAL_NAME} has no virtual address");
    job.agent.sigterm().unwrap();
    let done = job.cli(&["unload", "--purge"]).success().unwrap();
    for line in ["pinned map", "guard route", "169.254.20.53 from lo", "/var/lib/redirector"] {
        assert!(done.stdout.contains(line), "{line}: {}", done.stdout);
    }
    let left = job.on_node(
        "find /sys/fs/bpf/redirector /var/lib/redirector /run/redirector 2>/dev/null; \
            ip rule show | grep 19818; ip route show table all | grep 198.18; \
            ip -o addr show dev lo | grep 169.254; true",
    );
    assert_eq!(left, "");
    // A pod that is restarted unloads once more.
    let again = job.cli(&["unload", "--purge"]).success().unwrap();
    assert_eq!(again.stdout, "");
    assert_eq!(job.cli(&["unload"]).status.code(), Some(4));
}
