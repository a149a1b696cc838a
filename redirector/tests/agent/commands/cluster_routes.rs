//! Routes of the cluster, as an agent takes them from slices.

use serde_json::{Value, json};
use testbed::{
    ExecutorOptions,
    process::until,
    topology::{INTERNAL_NAME, PUBLIC_NAME},
};

use crate::{
    attach::cgroups::greets,
    fake_api::FakeApi,
    rig::{Job, LIMIT},
};

const POD: &str = "0f3a7c52-9d1e-4b6a-8c2f-7e5d4a3b2c1d";
const CONFIG: &str = "[attach]\ncgroups = [\"kubernetes\"]\n[[routes]]\nsource = \
    \"own.internal\"\ndestination = \"203.0.113.9\"\n";

fn route(source: &str) -> Value {
    json!({"source": source, "destination": PUBLIC_NAME})
}

/// An agent on a node of a cluster with such slices.
fn job(slices: impl Fn(&FakeApi)) -> (Job, FakeApi) {
    let mut api = None;
    let pod = ExecutorOptions {
        cgroup: Some(format!("kubepods/burstable/pod{POD}/container")),
        ..ExecutorOptions::pod("job")
    };
    let job = Job::in_pods(CONFIG, pod, |rig| {
        let api = api.insert(FakeApi::start(rig));
        api.put_pod(POD, "default", "sg-executor-job-batches-1", "10.61.1.2");
        slices(api);
        let mut environment = api.environment();
        environment.push(("REDIRECTOR_CLUSTER_ROUTES".into(), "follow".into()));
        environment
    });
    (job, api.unwrap())
}

/// The sources that are live, each with its origin.
fn live(job: &Job) -> Vec<String> {
    let routes = job.json(&["route", "list"])["routes"].as_array().unwrap().clone();
    let live = routes.iter().filter(|route| route["live"] == true);
    live.map(|route| {
        format!("{} {}", route["source"].as_str().unwrap(), route["origin"].as_str().unwrap())
    })
    .collect()
}

fn await_live(job: &Job, wanted: &[&str]) {
    until("the routes to be live", LIMIT, || Ok(live(job) == wanted))
        .unwrap_or_else(|error| panic!("{error:#}: {:?}\n{}", live(job), job.agent.log_tail()));
}

fn await_report(api: &FakeApi, revision: i64) -> Value {
    let reported = || api.report().filter(|report| report["spec"]["revision"] == revision);
    until("the report", LIMIT, || Ok(reported().is_some()))
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", api.report()));
    reported().unwrap()
}

#[test]
fn routes_of_slices_are_live_reported_and_kept_on_disk() {
    let (mut job, api) = job(|_| {});
    await_live(&job, &["own.internal file"]);
    // Two routes of one: the file's is this node's own.
    api.put_slice("routes-0", 1, &[("a", route(INTERNAL_NAME)), ("own", route("own.internal"))]);
    let of_cluster = format!("{INTERNAL_NAME} cluster");
    await_live(&job, &[&of_cluster, "own.internal file"]);
    assert!(greets(job.executor.sandbox()));
    let report = await_report(&api, 1);
    assert_eq!(report["metadata"]["name"], "node1");
    let reason = "the node has a route of its own, from the file";
    assert_eq!(
        report["spec"]["failingRoutes"],
        json!([{"route": "own", "reason": reason}]),
        "{report}"
    );
    // On one node, a route is local, and the reply warns of that.
    let added = job.cli(&["route", "add", "b.internal", "203.0.113.9"]);
    assert!(added.stderr.contains("on this node only"), "{}", added.text());
    // Neither the agent's start nor a job needs the API server.
    api.set_down(true);
    job.agent.restart().unwrap();
    await_live(&job, &[&of_cluster, "b.internal command_line", "own.internal file"]);
    assert!(greets(job.executor.sandbox()));
    // What has changed meanwhile is found out.
    api.put_slice("routes-0", 2, &[]);
    api.set_down(false);
    await_live(&job, &["b.internal command_line", "own.internal file"]);
    await_report(&api, 2);
}

#[test]
fn a_route_that_fails_is_reported_with_its_reason() {
    let nowhere = json!({"source": "n.internal", "destination": "nowhere.company.net"});
    let newer = json!({"source": "m.internal", "destination": PUBLIC_NAME, "weight": 1});
    let (job, api) = job(|api| {
        api.put_slice("routes-0", 7, &[("n", nowhere.clone()), ("m", newer.clone())]);
        api.put_slice("routes-1", 6, &[("a", route(INTERNAL_NAME))]);
    });
    let report = await_report(&api, 7);
    let failing = report["spec"]["failingRoutes"].as_array().unwrap();
    let reason = |name: &str| {
        let found = failing.iter().find(|failing| failing["route"] == name);
        found.unwrap_or_else(|| panic!("{report}"))["reason"].as_str().unwrap().to_owned()
    };
    assert!(reason("m").contains("weight"), "{report}");
    assert!(reason("n").contains("does not resolve"), "{report}");
    assert_eq!(report["spec"]["failing"], 2);
    assert!(greets(job.executor.sandbox()));
}
