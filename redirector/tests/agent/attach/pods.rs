//! Pods by their names, as the API server of Kubernetes has them.

use std::time::{Duration, Instant};

use serde_json::json;
use testbed::{
    Executor, ExecutorOptions, ResolvConf,
    process::until,
    topology::{DNS_ADDRESS, INTERNAL_NAME},
};

use crate::{
    attach::cgroups::greets,
    fake_api::FakeApi,
    rig::{Job, LIMIT},
};

const JOB: &str = "0f3a7c52-9d1e-4b6a-8c2f-7e5d4a3b2c1d";
const SYSTEM: &str = "1f3a7c52-9d1e-4b6a-8c2f-7e5d4a3b2c1d";
const LATER: &str = "2f3a7c52-9d1e-4b6a-8c2f-7e5d4a3b2c1d";

fn config(attach: &str) -> String {
    format!(
        "[attach]\n{attach}\n[[routes]]\nsource = \"{INTERNAL_NAME}\"\ndestination = \
            \"artifactory.public.company.net\"\n"
    )
}

/// A pod that asks the shim.
fn pod(uid: &str) -> ExecutorOptions {
    ExecutorOptions {
        cgroup: Some(format!("kubepods/burstable/pod{uid}/container")),
        ..ExecutorOptions::pod(&uid[..8])
    }
}

/// A pod that asks a server that refuses internal names.
fn pod_of_other_resolver(uid: &str) -> ExecutorOptions {
    ExecutorOptions { resolv: ResolvConf::of(DNS_ADDRESS), ..pod(uid) }
}

/// The cgroups of pods that are attached, by the beginnings of their UIDs.
fn attached(job: &Job) -> Vec<String> {
    let status = job.json(&["status"]);
    let attachments = status["datapath"]["attachments"].as_array().unwrap().iter();
    let mut found: Vec<_> = attachments
        .map(|at| at["cgroup"].as_str().unwrap().rsplit('/').next().unwrap().to_owned())
        .map(|name| name.chars().take(11).collect())
        .collect();
    found.sort();
    found
}

fn await_attached(job: &Job, expected: &[&str]) {
    until("the pods to be attached", LIMIT, || Ok(attached(job) == expected))
        .unwrap_or_else(|error| panic!("{error:#}: {:?}\n{}", attached(job), job.agent.log_tail()));
}

/// A job's pod and one of the system, which the API server has named before the agent starts.
fn two_pods(attach: &str, pod: fn(&str) -> ExecutorOptions) -> (Job, Executor, FakeApi) {
    let mut api = None;
    let mut system = None;
    let job = Job::in_pods(&config(attach), pod(JOB), |rig| {
        system = Some(rig.executor(pod(SYSTEM)).unwrap());
        let api = api.insert(FakeApi::start(rig));
        api.put_pod(JOB, "default", "sg-executor-job-batches-1", "10.61.1.2");
        api.put_pod(SYSTEM, "kube-system", "coredns-1", "10.61.2.2");
        api.set_taints(vec![
            json!({"key": "redirector.dev/not-ready", "effect": "NoSchedule"}),
            json!({"key": "pool", "value": "executors", "effect": "NoSchedule"}),
        ]);
        api.environment()
    });
    (job, system.unwrap(), api.unwrap())
}

/// A resolver in a pod whose queries were answered would pass virtual addresses on to clients that
/// nothing redirects.
#[test]
fn pods_of_kube_system_are_left_alone() {
    let (job, system, api) = two_pods("cgroups = [\"auto\"]", pod_of_other_resolver);
    assert_eq!(attached(&job), ["pod0f3a7c52"]);
    assert!(greets(job.executor.sandbox()));
    let asked = system.run(&format!("getent ahostsv4 {INTERNAL_NAME}"), LIMIT).unwrap();
    assert!(!asked.stdout.contains("198.18."), "{}", asked.text());
    assert!(!greets(system.sandbox()));
    let status = job.json(&["status"]);
    assert_eq!(status["datapath"]["pods"], json!({"selected": 1, "left_out": 1, "error": null}));
    let interfaces = status["datapath"]["packet"]["interfaces"].as_array().unwrap();
    let of_system = interfaces.iter().find(|at| at["name"] == "pod2").unwrap();
    assert!(of_system["reason"].as_str().unwrap().contains("attach.namespaces"), "{of_system}");
    let shown = job.cli(&["status"]).stdout;
    assert!(shown.contains("pods       1 pod redirected, 1 left out\n"), "{shown}");
    // The agent serves, so jobs may come.
    let only = json!({"key": "pool", "value": "executors", "effect": "NoSchedule"});
    until("the taint to be removed", LIMIT, || Ok(api.taints() == (vec![only.clone()], 2)))
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", api.taints()));
}

#[test]
fn new_pods_are_attached_when_they_are_named() {
    let attach = "cgroups = [\"kubernetes\"]\ninterfaces = \"off\"\npod_names = [\"sg-*\"]";
    let (job, _system, api) = two_pods(attach, pod);
    assert_eq!(attached(&job), ["pod0f3a7c52"]);
    let later = job.rig.executor(pod(LATER)).unwrap();
    api.put_pod(LATER, "default", "other", "10.61.3.2");
    until("the pod to be left out", LIMIT, || {
        Ok(job.json(&["status"])["datapath"]["pods"]["left_out"] == 2)
    })
    .unwrap();
    assert_eq!(attached(&job), ["pod0f3a7c52"]);
    // Also after the versions that the agent knows are too old.
    api.expire();
    api.put_pod(LATER, "default", "sg-executor-job-batches-2", "10.61.3.2");
    await_attached(&job, &["pod0f3a7c52", "pod2f3a7c52"]);
    assert!(greets(later.sandbox()));
}

#[test]
fn without_the_api_known_pods_stay_and_new_ones_are_attached() {
    let (job, system, api) = two_pods("cgroups = [\"kubernetes\"]\ninterfaces = \"off\"", pod);
    api.set_down(true);
    until("the outage to be noticed", LIMIT, || {
        Ok(job.json(&["status"])["datapath"]["pods"]["error"].is_string())
    })
    .unwrap();
    let later = job.rig.executor(pod(LATER)).unwrap();
    await_attached(&job, &["pod0f3a7c52", "pod2f3a7c52"]);
    assert!(greets(later.sandbox()) && greets(job.executor.sandbox()));
    assert!(!greets(system.sandbox()));
    api.put_pod(LATER, "kube-system", "later", "10.61.3.2");
    api.set_down(false);
    await_attached(&job, &["pod0f3a7c52"]);
    assert_eq!(job.json(&["status"])["state"], "ok");
}

/// A cut network: nothing closes the connections. Without keepalive it takes five minutes.
#[test]
fn an_api_whose_packets_are_dropped_is_noticed() {
    const NOTICED: Duration = Duration::from_secs(120);
    let (job, _system, api) = two_pods("cgroups = [\"kubernetes\"]\ninterfaces = \"off\"", pod);
    let port = api.port();
    job.on_node(&format!(
        "nft 'add table ip cut; add chain ip cut in {{ type filter hook input priority 0; }}; \
            add rule ip cut in tcp sport {port} drop; add rule ip cut in tcp dport {port} drop'"
    ));
    let cut = Instant::now();
    until("the silence to be noticed", NOTICED, || {
        Ok(job.json(&["status"])["datapath"]["pods"]["error"].is_string())
    })
    .unwrap();
    println!("noticed after {:?}", cut.elapsed());
    let later = job.rig.executor(pod(LATER)).unwrap();
    await_attached(&job, &["pod0f3a7c52", "pod2f3a7c52"]);
    assert!(greets(later.sandbox()));
    api.put_pod(LATER, "kube-system", "later", "10.61.3.2");
    job.on_node("nft delete table ip cut");
    until("the pod to be left out", NOTICED, || Ok(attached(&job) == ["pod0f3a7c52"])).unwrap();
}
