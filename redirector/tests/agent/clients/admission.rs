//! Who may reach a backend: one source address only, executors only, the node only. Probes judge
//! from where connects come, and never for ever.

use std::time::{Duration, Instant};

use testbed::{
    Executor, ExecutorOptions, Network, Sandbox,
    process::until,
    topology::{INTERNAL_NAME, NODE_ADDRESS_2},
};

use crate::rig::{Job, LIMIT};

const BACKEND: &str = "203.0.113.7";
/// What the agent logs when a probe was accepted.
const RETURNED: &str = "a backend accepts connections again";

/// Both load balancers, and probes in a quick succession.
fn config(more: &str) -> String {
    format!(
        "[[routes]]\nsource = \"{INTERNAL_NAME}\"\ndestination = [\"{BACKEND}\", \
            \"203.0.113.8\"]\n{more}[health]\nprobe_interval = \"1s\"\n"
    )
}

/// The banner of the load balancer that a connect of the executor reached, empty if it failed.
fn connect(executor: &Executor) -> String {
    let line = format!("curl -s --max-time 20 http://{INTERNAL_NAME}:8080/");
    executor.run(&line, LIMIT).unwrap().stdout.trim().to_owned()
}

/// Connects until one fails, which must be to the first backend.
fn connect_until_one_fails(job: &Job, executor: &Executor) {
    until("a failed connect", LIMIT, || Ok(connect(executor).is_empty())).unwrap();
    assert!(ejection(job).is_some(), "{}", job.agent.log_tail());
}

/// In how many milliseconds the first backend is tried again; none if it is eligible.
fn ejection(job: &Job) -> Option<u64> {
    let shown = job.json(&["route", "show", INTERNAL_NAME]);
    let backends = shown["route"]["backends"].as_array().unwrap();
    let backend = backends.iter().find(|backend| backend["address"] == BACKEND).unwrap();
    let of_port = backend["ejections"].as_array().into_iter().flatten();
    of_port.filter_map(|ejection| ejection["retry_in_ms"].as_u64()).max()
}

/// Adds a rule to a chain of nftables.
fn filter(sandbox: &Sandbox, chain: &str, rule: &str) {
    let table = format!(
        "table ip admission {{
chain {chain} {{
type filter hook {chain} priority -10
\
            {rule}
}}
}}
"
    );
    let line = format!(
        "nft -f - <<'END'
{table}END
"
    );
    sandbox.run(&line, LIMIT).unwrap().success().unwrap();
}

#[test]
fn a_backend_that_admits_one_source_returns_by_probes() {
    // Its sources are the node's second address, which is not the default.
    let sources = format!("source_ips = [\"{NODE_ADDRESS_2}\"]\n");
    let mut job = Job::with_config(&config(&sources));
    let on_host = ExecutorOptions { network: Network::Host, ..ExecutorOptions::pod("host") };
    let executor = job.rig.executor(on_host).unwrap();
    let rule = format!("iif != lo ip daddr {BACKEND} ip saddr != {NODE_ADDRESS_2} counter drop");
    filter(job.rig.customer.sandbox(), "input", &rule);
    job.balancers[0].stop().unwrap();
    connect_until_one_fails(&job, &executor);
    assert_eq!(connect(&executor), "lb2", "it is ejected");
    job.balancers[0].start_again().unwrap();
    until("the backend to be eligible", LIMIT, || Ok(ejection(&job).is_none())).unwrap();
    // No connect has had a part in that, and nothing came from another address.
    assert!(job.agent.log().contains(RETURNED), "{}", job.agent.log_tail());
    until("a connect to it", LIMIT, || Ok(connect(&executor) == "lb1")).unwrap();
    let listed = job.rig.customer.sandbox().run("nft list table ip admission", LIMIT);
    let listed = listed.unwrap().success().unwrap().stdout;
    assert!(listed.contains("counter packets 0 "), "{listed}");
}

/// The node's own packets to the backend are dropped, those of pods are not.
#[test]
fn failing_probes_hold_no_backend_from_executors() {
    let mut job = Job::with_config(&config(""));
    filter(job.rig.node.sandbox(), "output", &format!("ip daddr {BACKEND} drop"));
    job.balancers[0].stop().unwrap();
    connect_until_one_fails(&job, &job.executor);
    let failed = Instant::now();
    job.balancers[0].start_again().unwrap();
    until("a trial connect", Duration::from_secs(90), || {
        let elapsed = failed.elapsed();
        // The agent sees the failure half a second later, on a busy machine after seconds: probes
        // hold for 30 s from then.
        let wait = Duration::from_millis(ejection(&job).unwrap_or_default());
        assert!(elapsed + wait < Duration::from_secs(40), "{elapsed:?} + {wait:?}");
        Ok(connect(&job.executor) == "lb1")
    })
    .unwrap();
    println!("a connect got through after {:?}", failed.elapsed());
    assert!(!job.agent.log().contains(RETURNED));
    assert_eq!(ejection(&job), None, "its connect was accepted");
}

/// The node's probes are accepted, pods' connects are refused on their way.
#[test]
fn passing_probes_bring_no_dead_backend_back() {
    const CONNECTS: usize = 200;
    let job = Job::with_config(&config(""));
    let rule = format!("ip daddr {BACKEND} tcp flags syn reject with tcp reset");
    filter(job.rig.node.sandbox(), "forward", &rule);
    connect_until_one_fails(&job, &job.executor);
    let began = Instant::now();
    let answers: Vec<String> = (0..CONNECTS).map(|_| connect(&job.executor)).collect();
    let failed = answers.iter().filter(|answer| answer.is_empty()).count();
    let served = answers.iter().filter(|answer| *answer == "lb2").count();
    println!("{failed} of {CONNECTS} failed within {:?}", began.elapsed());
    assert_eq!(failed + served, CONNECTS);
    // One for the probe's word, then one per ejection, each twice as long as the last.
    assert!(failed <= 10, "{failed} of {CONNECTS} within {:?}", began.elapsed());
    let log = job.agent.log();
    assert_eq!(log.matches(RETURNED).count(), 1, "{log}");
}
