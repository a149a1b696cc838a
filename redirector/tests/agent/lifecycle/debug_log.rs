//! `run --debug-datapath`: the agent logs what the programs decide, with the capabilities that the
//! product has.

use std::time::Duration;

use testbed::{
    ExecutorOptions, Rig,
    agent::{Agent, AgentOptions},
    process::until,
    topology::INTERNAL_NAME,
};

use crate::rig::{Job, binary};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn the_agent_logs_decisions_until_it_restarts_without_the_flag() {
    let rig = Rig::new().unwrap();
    let executor = rig.executor(ExecutorOptions::pod("job")).unwrap();
    let dns = rig.customer.dns_server().unwrap();
    let balancers = [1, 2].map(|number| rig.customer.load_balancer(number).unwrap());
    let options = AgentOptions::documented(binary()).unwrap();
    let logging =
        AgentOptions { arguments: vec!["--debug-datapath".to_owned()], ..options.clone() };
    let agent = Agent::start(&rig.node, logging).unwrap();
    let mut job = Job { agent, executor, balancers, dns, rig };
    let request = format!("curl -sS --max-time 10 http://{INTERNAL_NAME}/");
    let decisions = |agent: &Agent, verdict: &str| agent.log().matches(verdict).count();
    job.shell(&request);
    for verdict in ["verdict=redirected", "verdict=established"] {
        until(verdict, LIMIT, || Ok(decisions(&job.agent, verdict) > 0))
            .unwrap_or_else(|error| panic!("{error:#}:\n{}", job.agent.log_tail()));
    }

    assert!(job.agent.sigterm().unwrap().success());
    let logged = decisions(&job.agent, "verdict=");
    job.agent = Agent::start(&job.rig.node, options).unwrap();
    job.shell(&request);
    let established =
        || job.json(&["route", "list"])["routes"][0]["counters"]["established"].as_u64().unwrap();
    until("the second connect is counted", LIMIT, || Ok(established() == 2)).unwrap();
    // Both agents write to the same file.
    assert_eq!(decisions(&job.agent, "verdict="), logged, "{}", job.agent.log_tail());
}
