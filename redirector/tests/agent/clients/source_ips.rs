//! Source addresses that this host lacks: every command reports them, and no connect fails.

use std::time::Duration;

use testbed::{process::until, topology::INTERNAL_NAME};

use crate::{
    attach::cgroups::greets,
    rig::{Job, LIMIT},
};

const MISSING: &str = "192.0.2.77";

fn config(more: &str) -> String {
    format!(
        "[[routes]]\nsource = \"{INTERNAL_NAME}\"\ndestination = \
            \"artifactory.public.company.net\"\n{more}"
    )
}

/// Whether `status` reports the missing address as a problem, with the matching exit code.
fn is_reported(job: &Job) -> bool {
    let status = job.json(&["status"]);
    let reported = status["problems"].as_array().unwrap().iter().any(|problem| {
        problem["code"] == "source_ip_missing"
            && problem["message"].as_str().unwrap().contains(MISSING)
            && problem["remedy"].is_string()
    });
    assert_eq!(
        (status["state"] == "degraded", job.cli(&["status"]).status.code()),
        (reported, Some(i32::from(reported))),
        "{status}"
    );
    reported
}

fn address(job: &Job, verb: &str) {
    job.rig
        .node
        .sandbox()
        .run(&format!("ip address {verb} {MISSING}/32 dev lo"), LIMIT)
        .unwrap()
        .success()
        .unwrap();
}

#[test]
fn setting_a_missing_source_address_warns_at_once() {
    let job = Job::with_config(&config(""));
    assert!(!is_reported(&job));
    let set = job.cli(&["route", "set", INTERNAL_NAME, "--source-ip", MISSING]);
    assert!(
        set.status.success() && set.stderr.contains(&format!("warning: this host lacks {MISSING}")),
        "{}",
        set.text()
    );
    assert!(is_reported(&job));
    assert!(greets(job.executor.sandbox()), "a connect failed");
    // As if a network interface were attached after boot.
    address(&job, "add");
    assert!(!is_reported(&job));
    let set =
        job.cli(&["route", "set", INTERNAL_NAME, "--source-ip", MISSING, "--idle-timeout", "350s"]);
    assert!(set.status.success() && !set.stderr.contains("this host lacks"), "{}", set.text());
    address(&job, "del");
    assert!(is_reported(&job));
}

#[test]
fn a_file_with_a_missing_source_address_is_in_force() {
    let mut job = Job::with_config(&config(""));
    job.agent.write_config(&config(&format!("source_ips = [\"{MISSING}\"]\n"))).unwrap();
    let check = job.cli(&["config", "check"]);
    assert!(
        check.status.success() && check.stderr.contains(&format!("this host lacks `{MISSING}`")),
        "{}",
        check.text()
    );
    let check = job.json(&["check"]);
    let line = check["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["name"] == "source_ips")
        .unwrap();
    assert_eq!(
        (line["outcome"].as_str(), check["outcome"].as_str()),
        (Some("warning"), Some("warning")),
        "{line}"
    );
    job.agent.sighup().unwrap();
    until("the file to be in force", Duration::from_secs(10), || Ok(is_reported(&job))).unwrap();
    assert!(
        job.agent.log().contains(&format!("this host lacks the source address {MISSING}")),
        "{}",
        job.agent.log_tail()
    );
    assert!(greets(job.executor.sandbox()), "a connect failed");
    // The same after a restart.
    job.agent.restart().unwrap();
    assert!(is_reported(&job));
}
