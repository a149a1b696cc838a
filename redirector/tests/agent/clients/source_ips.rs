//! Source addresses that this host lacks: told wherever a route is read or changed, and no connect
//! is lost.

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

/// Whether `status` names the missing address as a problem; its exit code says the same.
fn is_told(job: &Job) -> bool {
    let status = job.json(&["status"]);
    let told = status["problems"].as_array().unwrap().iter().any(|problem| {
        problem["code"] == "source_ip_missing"
            && problem["message"].as_str().unwrap().contains(MISSING)
            && problem["remedy"].is_string()
    });
    assert_eq!(
        (status["state"] == "degraded", job.cli(&["status"]).status.code()),
        (told, Some(i32::from(told))),
        "{status}"
    );
    told
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
fn a_route_that_is_given_an_address_of_nobody_is_warned_about_at_once_until_the_address_comes() {
    let job = Job::with_config(&config(""));
    assert!(!is_told(&job));
    let set = job.cli(&["route", "set", INTERNAL_NAME, "--source-ip", MISSING]);
    assert!(
        set.status.success() && set.stderr.contains(&format!("warning: this host lacks {MISSING}")),
        "{}",
        set.text()
    );
    assert!(is_told(&job));
    assert!(greets(job.executor.sandbox()), "a connect is lost");
    // As when a network interface is attached after the boot.
    address(&job, "add");
    assert!(!is_told(&job));
    let set =
        job.cli(&["route", "set", INTERNAL_NAME, "--source-ip", MISSING, "--idle-timeout", "350s"]);
    assert!(set.status.success() && !set.stderr.contains("this host lacks"), "{}", set.text());
    address(&job, "del");
    assert!(is_told(&job));
}

#[test]
fn a_file_with_an_address_of_nobody_serves_and_every_look_at_it_says_so() {
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
    until("the file to serve", Duration::from_secs(10), || Ok(is_told(&job))).unwrap();
    assert!(
        job.agent.log().contains(&format!("this host lacks the source address {MISSING}")),
        "{}",
        job.agent.log_tail()
    );
    assert!(greets(job.executor.sandbox()), "a connect is lost");
    // And at a start.
    job.agent.restart().unwrap();
    assert!(is_told(&job));
}
