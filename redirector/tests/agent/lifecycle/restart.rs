//! Connects are not affected when the agent is killed, restarted or stopped.

use std::time::{Duration, Instant};

use testbed::{clients::LoadOptions, clients::LoadProcess};

use crate::rig::Job;

/// The documented route with the port of the load balancers' greeting servers.
const CONFIG: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";

fn load(job: &Job, vip: &str, seconds: f64) -> LoadProcess {
    let target = format!("{vip}:8080").parse().unwrap();
    let options = LoadOptions::greeted_by(&["lb1", "lb2"], target, 1000, seconds);
    LoadProcess::start(job.executor.sandbox(), &options).unwrap()
}

#[test]
fn no_connect_fails_when_the_agent_is_killed_and_restarted() {
    let mut job = Job::with_config(CONFIG);
    let vip = job.vip();
    let load = load(&job, &vip, 9.0);
    std::thread::sleep(Duration::from_secs(2));
    job.agent.sigkill().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let status = job.cli(&["status"]);
    assert_eq!(status.status.code(), Some(1), "{}", status.text());
    job.agent.restart().unwrap();
    assert_eq!(job.vip(), vip);
    let report = load.report().unwrap();
    assert!(report.flawless(), "{report:?}\n{}", job.agent.log_tail());
    assert_eq!(report.attempted, 9000);
    assert_eq!(job.rig.customer.leaked_packets().unwrap(), 0);
    let route = job.json(&["route", "show", "artifactory.internal.company.net"]);
    let text = route.to_string();
    assert!(text.contains("\"started\":9000") && text.contains("\"established\":9000"), "{text}");
}

#[test]
fn sigterm_ends_the_agent_within_two_seconds() {
    let mut job = Job::with_config(CONFIG);
    let vip = job.vip();
    let load = load(&job, &vip, 3.0);
    std::thread::sleep(Duration::from_secs(1));
    let began = Instant::now();
    let ended = job.agent.sigterm().unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "took {:?}", began.elapsed());
    assert_eq!(ended.code(), Some(0), "{}", job.agent.log_tail());
    let report = load.report().unwrap();
    assert!(report.flawless(), "{report:?}");
}

#[test]
fn vips_are_the_same_after_a_sigkill_and_a_sigterm() {
    let mut job = Job::with_config(CONFIG);
    for number in 0..20 {
        let added = job.cli(&[
            "route",
            "add",
            &format!("host{number}.internal.company.net"),
            "203.0.113.7",
        ]);
        assert!(added.status.success(), "{}", added.text());
    }
    let vips = |job: &Job| -> Vec<(String, String)> {
        let listed = job.json(&["route", "list"]);
        let routes = listed["routes"].as_array().unwrap_or_else(|| panic!("{listed}"));
        routes
            .iter()
            .map(|route| {
                (
                    route["source"].as_str().unwrap().to_owned(),
                    route["vip"]["ipv4"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    };
    let before = vips(&job);
    assert_eq!(before.len(), 21);
    job.agent.restart().unwrap();
    assert_eq!(vips(&job), before);
    job.agent.sigterm().unwrap();
    job.agent.restart().unwrap();
    assert_eq!(vips(&job), before);
}
