//! Another process removes what the agent needs: it is restored, and reported.

use std::time::{Duration, Instant};

use testbed::process::{is_machine_busy, until};

use crate::{
    attach::cgroups::greets,
    rig::{Job, LIMIT},
};

/// The pins, and the programs that are attached to cgroups.
const PINS: &str = "find /sys/fs/bpf/redirector -type f | sort";

fn has_problem(job: &Job, code: &str) -> bool {
    let status = job.json(&["status"]);
    let problems = status["problems"].as_array().cloned().unwrap_or_default();
    problems.iter().any(|problem| problem["code"] == code)
}

/// How often something was restored, as the metrics count it.
fn restored(job: &Job) -> u64 {
    let page = job.on_node("curl -s http://127.0.0.1:9464/metrics");
    let line = page.lines().find(|line| line.starts_with("redirector_restored_total "));
    let value: f64 = line.expect("the metric").rsplit(' ').next().unwrap().parse().unwrap();
    value as u64
}

/// Removes something, and waits until the agent reports that it has restored it; then all is as
/// before. Returns how long that took: on an idle machine a second at most.
fn assert_restored(job: &Job, removal: &str, as_before: impl Fn() -> bool) -> Duration {
    let (pins, before) = (job.on_node(PINS), restored(job));
    job.on_node(removal);
    let removed = Instant::now();
    until("something to be restored", LIMIT, || {
        Ok(restored(job) > before && job.on_node(PINS) == pins && as_before())
    })
    .unwrap_or_else(|error| panic!("{removal}: {error:#}\n{}", job.agent.log_tail()));
    let took = removed.elapsed();
    assert!(has_problem(job, "restored"), "{removal}: {}", job.cli(&["status"]).text());
    assert!(job.agent.log().contains("by another process"), "{}", job.agent.log_tail());
    assert!(greets(job.executor.sandbox()), "{removal}");
    took
}

/// Removes it again while the machine was too busy for two seconds.
fn assert_restored_within_two_seconds(job: &Job, removal: &str, as_before: impl Fn() -> bool) {
    let mut tries = Vec::new();
    while tries.last().is_none_or(|took| *took >= Duration::from_secs(2)) {
        if tries.len() == 6 {
            assert!(is_machine_busy(), "{removal}: restored after {tries:?}");
            break;
        }
        tries.push(assert_restored(job, removal, &as_before));
    }
    println!("{removal}: restored after {tries:?}");
}

#[test]
fn removed_pins_are_restored_and_detach_nothing() {
    let job = Job::only_cgroups();
    assert!(greets(job.executor.sandbox()));
    let removals = ["rm -r /sys/fs/bpf/redirector/v*/links/*", "rm -r /sys/fs/bpf/redirector/v*"];
    for removal in removals {
        assert_restored_within_two_seconds(&job, removal, || true);
        assert!(greets(job.executor.sandbox()), "{removal}");
    }
}

/// The number of pinned links that are attached to a cgroup.
fn attached(job: &Job) -> usize {
    let links = "for link in /sys/fs/bpf/redirector/v*/links/*/rd_*; do \
                 bpftool link show pinned $link; done";
    let attached = |line: &&str| line.contains("cgroup_id ") && !line.contains("cgroup_id 0 ");
    job.on_node(links).lines().filter(attached).count()
}

#[test]
fn detached_links_are_attached_again() {
    let job = Job::only_cgroups();
    assert!(greets(job.executor.sandbox()));
    let all = attached(&job);
    assert!(all > 0);
    let detach = |program: &str| {
        format!(
            "for link in /sys/fs/bpf/redirector/v*/links/*/{program}; do \
             bpftool link detach pinned $link || exit 1; done"
        )
    };
    assert_restored_within_two_seconds(&job, &detach("rd_connect4"), || attached(&job) == all);
    assert_restored_within_two_seconds(&job, &detach("rd_*"), || attached(&job) == all);
}

#[test]
fn an_unmounted_bpf_file_system_ends_nothing() {
    let job = Job::only_cgroups();
    let pins = job.on_node(PINS);
    // Busy otherwise: the agent holds the directory's lock.
    job.on_node("umount -l /sys/fs/bpf");
    until("the loss to be reported", LIMIT, || Ok(has_problem(&job, "pins_lost"))).unwrap();
    assert_eq!(job.cli(&["status"]).status.code(), Some(1), "degraded");
    assert!(greets(job.executor.sandbox()));
    job.on_node("mount -t bpf bpf /sys/fs/bpf");
    until("the pins to be restored", LIMIT, || Ok(job.on_node(PINS) == pins)).unwrap();
    until("the loss to be over", LIMIT, || Ok(!has_problem(&job, "pins_lost"))).unwrap();
    assert!(has_problem(&job, "restored"));
    assert!(greets(job.executor.sandbox()));
    // No second agent may use the new directory.
    until("the directory to be locked", LIMIT, || {
        Ok(job.on_node("flock -n /sys/fs/bpf/redirector true || echo locked").contains("locked"))
    })
    .unwrap();
}

#[test]
fn programs_of_interfaces_are_restored() {
    let job = Job::new();
    let interfaces = "/sys/fs/bpf/redirector/v*/interfaces";
    until("an interface", LIMIT, || {
        Ok(!job.on_node(&format!("find {interfaces} -name 'rd_*'")).is_empty())
    })
    .unwrap();
    let answers = || greets(job.executor.sandbox());
    assert!(answers(), "names are answered by the interface's programs");
    let detach = format!(
        "for link in {interfaces}/*/rd_*; do bpftool link detach pinned $link || exit 1; done"
    );
    for removal in [&detach, &format!("rm -r {interfaces}/*")] {
        assert_restored_within_two_seconds(&job, removal, || true);
        assert!(answers(), "{removal}");
    }
}

#[test]
fn the_guard_and_the_address_of_the_shim_are_restored() {
    let job = Job::only_cgroups();
    let state = "ip rule show pref 0; ip route show table 19818; ip address show dev lo";
    let before = job.on_node(state);
    let removals = [
        "ip rule delete pref 0 to 198.18.0.0/16",
        "ip route flush table 19818",
        "ip address delete 169.254.20.53/32 dev lo",
    ];
    for removal in removals {
        assert_restored(&job, removal, || job.on_node(state) == before);
    }
    // The shim still answers there.
    let asked = "dig +short +tries=1 @169.254.20.53 artifactory.internal.company.net";
    assert!(job.on_node(asked).starts_with("198.18."));
}

#[test]
fn what_an_operator_unloads_is_not_restored() {
    let mut job = Job::only_cgroups();
    let unloaded = job.cli(&["unload", "--force"]);
    assert!(unloaded.status.success(), "{}", unloaded.text());
    until("the agent to report it", LIMIT, || Ok(has_problem(&job, "not_attached"))).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let left = job.on_node("find /sys/fs/bpf/redirector -type f; ip rule show to 198.18.0.0/16");
    assert_eq!(left, "");
    job.agent.sigterm().unwrap();
    job.agent.restart().unwrap();
    assert!(greets(job.executor.sandbox()));
}
