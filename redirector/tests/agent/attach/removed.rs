//! Links, filters and pins that another process removes while the agent runs.

use std::time::{Duration, Instant};

use testbed::process::until;

use crate::{
    attach::cgroups::greets,
    rig::{Job, LIMIT},
};

/// How soon everything is as before.
const RESTORED_WITHIN: Duration = Duration::from_secs(2);

/// What programs of ours are attached to, and the pins.
const PINS: &str = "find /sys/fs/bpf/redirector -type f | sort";

fn node(job: &Job, line: &str) -> String {
    job.rig.node.sandbox().run(line, LIMIT).unwrap().success().unwrap().stdout
}

fn has_problem(job: &Job, code: &str) -> bool {
    let status = job.json(&["status"]);
    let problems = status["problems"].as_array().cloned().unwrap_or_default();
    problems.iter().any(|problem| problem["code"] == code)
}

/// Removes something, and waits until all pins and redirecting are as before.
fn assert_restored(job: &Job, removal: &str) {
    let pins = node(job, PINS);
    node(job, removal);
    let began = Instant::now();
    until("everything to be restored", LIMIT, || {
        Ok(node(job, PINS) == pins && greets(job.executor.sandbox()))
    })
    .unwrap_or_else(|error| panic!("{removal}: {error:#}\n{}", job.agent.log_tail()));
    let took = began.elapsed();
    assert!(took < RESTORED_WITHIN + Duration::from_secs(1), "{removal}: {took:?}");
    assert!(has_problem(job, "restored"), "{removal}: {}", job.cli(&["status"]).text());
    assert!(job.agent.log().contains("by another process"), "{}", job.agent.log_tail());
}

#[test]
fn removed_pins_are_restored_and_detach_nothing() {
    let job = Job::only_cgroups();
    assert!(greets(job.executor.sandbox()));
    let removals = ["rm -r /sys/fs/bpf/redirector/v*/links/*", "rm -r /sys/fs/bpf/redirector/v*"];
    for removal in removals {
        node(&job, removal);
        assert!(greets(job.executor.sandbox()), "the agent holds its links: {removal}");
        until("the pins", LIMIT, || Ok(node(&job, PINS).contains("rd_connect4"))).unwrap();
        assert_restored(&job, removal);
    }
}

#[test]
fn detached_links_are_attached_again() {
    let job = Job::only_cgroups();
    assert!(greets(job.executor.sandbox()));
    let detach = |program: &str| {
        format!(
            "for link in /sys/fs/bpf/redirector/v*/links/*/{program}; do \
             bpftool link detach pinned $link || exit 1; done"
        )
    };
    assert_restored(&job, &detach("rd_connect4"));
    assert_restored(&job, &detach("rd_*"));
}

#[test]
fn an_unmounted_bpf_file_system_ends_nothing() {
    let job = Job::only_cgroups();
    let pins = node(&job, PINS);
    node(&job, "umount /sys/fs/bpf");
    until("the loss to be reported", LIMIT, || Ok(has_problem(&job, "pins_lost"))).unwrap();
    assert_eq!(job.cli(&["status"]).status.code(), Some(1), "degraded");
    assert!(greets(job.executor.sandbox()));
    node(&job, "mount -t bpf bpf /sys/fs/bpf");
    until("the pins to be restored", LIMIT, || Ok(node(&job, PINS) == pins)).unwrap();
    assert!(!has_problem(&job, "pins_lost") && has_problem(&job, "restored"));
    assert!(greets(job.executor.sandbox()));
}

#[test]
fn programs_of_interfaces_are_restored() {
    let job = Job::new();
    let interfaces = "/sys/fs/bpf/redirector/v*/interfaces";
    until("an interface", LIMIT, || {
        Ok(!node(&job, &format!("find {interfaces} -name 'rd_*'")).is_empty())
    })
    .unwrap();
    let detach = format!(
        "for link in {interfaces}/*/rd_*; do bpftool link detach pinned $link || exit 1; done"
    );
    for removal in [&detach, &format!("rm -r {interfaces}/*")] {
        assert_restored(&job, removal);
    }
}
