//! Names that are answered by packet: executors whose nameserver knows nothing of us, and the agent
//! that is killed or replaced.

use std::time::Duration;

use testbed::{
    Executor,
    clients::{DnsLoad, DnsLoadOptions},
    topology::{INTERNAL_NAME, UNRELATED_ADDRESS, UNRELATED_NAME},
};

use crate::{
    dns::interception::{ONE, address, is_vip, pod},
    rig::{Job, LIMIT},
};

const CONFIG: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
";

/// A pod whose interface has the programs: its nameserver itself refuses the internal name.
fn served_pod(job: &Job) -> Executor {
    let pod = pod(job, "stranger", ONE);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !is_vip(&address(&pod, INTERNAL_NAME)) {
        assert!(std::time::Instant::now() < deadline, "{}", job.agent.log_tail());
        std::thread::sleep(Duration::from_millis(100));
    }
    pod
}

#[test]
fn names_are_answered_from_any_resolver_and_others_untouched() {
    let job = Job::with_config(CONFIG);
    let pod = served_pod(&job);
    let dig =
        |arguments: &str| pod.run(&format!("dig +tries=1 {arguments}"), LIMIT).unwrap().stdout;
    let answer = dig(&format!("{INTERNAL_NAME} A"));
    assert!(answer.contains("198.18.") && answer.contains(&format!("SERVER: {ONE}#53")));
    // No resolver is there, and the source is the one that was asked.
    assert!(dig(&format!("@203.0.113.99 {INTERNAL_NAME} A")).contains("SERVER: 203.0.113.99#53"));
    assert_eq!(dig(&format!("+short {UNRELATED_NAME} A")).trim(), UNRELATED_ADDRESS.to_string());
    let status = job.json(&["status"]);
    let (interception, packet) = (&status["dns"]["interception"], &status["datapath"]["packet"]);
    assert_eq!((&interception["on"], &interception["way"]), (&true.into(), &"packets".into()));
    assert_eq!((&packet["answers_names"], &packet["names"]), (&true.into(), &1.into()));
    assert!(packet["counters"]["names_answered"].as_u64() > Some(0), "{packet}");
    assert!(status["routes"][0]["answers"]["packet"].as_u64() > Some(0), "{status}");
    let served = packet["interfaces"].as_array().unwrap().iter();
    assert!(served.clone().any(|at| at["names"] == "packet"), "{packet}");
}

#[test]
fn a_killed_agent_leaves_names_and_connects_working() {
    let mut job = Job::with_config(CONFIG);
    let pod = served_pod(&job);
    let vip = address(&pod, INTERNAL_NAME);
    job.agent.sigkill().unwrap();
    for _ in 0..10 {
        assert_eq!(address(&pod, INTERNAL_NAME), vip);
        assert_eq!(address(&pod, UNRELATED_NAME), UNRELATED_ADDRESS.to_string());
        std::thread::sleep(Duration::from_millis(500));
    }
    let output = job.cli(&["status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    let packet = &status["datapath"]["packet"];
    assert_eq!((&packet["answers_names"], &packet["names"]), (&true.into(), &1.into()));
    assert!(status["routes"][0]["answers"]["packet"].as_u64() >= Some(10), "{status}");
}

#[test]
fn a_restart_costs_no_look_up() {
    let mut job = Job::with_config(CONFIG);
    let pod = served_pod(&job);
    let options = DnsLoadOptions {
        server: ONE.parse().unwrap(),
        rate: 1000,
        count: 8000,
        retry_ms: 1000,
        names: [INTERNAL_NAME, UNRELATED_NAME].map(str::to_owned).to_vec(),
    };
    let mut load = DnsLoad::start(pod.sandbox(), &options).unwrap();
    load.wait_half().unwrap();
    job.agent.sigkill().unwrap();
    job.agent.restart().unwrap();
    job.agent.sigterm().unwrap();
    job.agent.restart().unwrap();
    let report = load.report().unwrap();
    // Every answer is a good one: never the resolver's own for the internal name, never SERVFAIL.
    let expected = [format!("{INTERNAL_NAME} 0"), format!("{UNRELATED_NAME} 0")];
    assert!(
        report.lost == 0 && report.refused == 0 && report.answers.keys().eq(expected.iter()),
        "{report:?}\n{}",
        job.agent.log_tail()
    );
}

#[test]
fn a_removed_route_leaves_the_names_and_a_new_one_enters() {
    let job = Job::with_config(CONFIG);
    let pod = served_pod(&job);
    let add = ["route", "add", "git.internal.company.net", "artifactory.public.company.net"];
    assert!(job.cli(&add).status.success());
    assert!(is_vip(&address(&pod, "git.internal.company.net")), "live when the command returns");
    assert!(job.cli(&["route", "remove", "git.internal.company.net"]).status.success());
    assert_eq!(address(&pod, "git.internal.company.net"), "", "its resolver's own answer");
    assert_eq!(job.json(&["status"])["datapath"]["packet"]["names"], 1);
}
