//! What `maxSurge: 1` does, which came with Kubernetes 1.22: a second pod of the same template gets
//! ready beside the first, and takes over when that one is removed.

use std::time::Instant;

use serde_json::{Value, json};
use testbed::{process::until, topology::RESOLVER_ADDRESS};

use crate::{
    load::Load,
    stage::{LIMIT, Stage, route},
};

const SYSTEM: [&str; 2] = ["-n", "kube-system"];
const NEXT: &str = "redirector-next";
const ROUNDS: u32 = 3;

/// Clients ask the agent itself here, so its sockets must never be closed.
pub(crate) fn hands_over_under_load(stage: &Stage, vip: &str) {
    let _resolver = stage.rig().customer.resolver().unwrap();
    let upstreams = json!([format!("{RESOLVER_ADDRESS}:53")]);
    let change = json!({"config": {"dns": {"upstreams": upstreams}}, "routes": [route()]});
    stage.helm().upgrade(&change).unwrap();
    // The ConfigMap reaches a running agent within a minute only.
    remove(stage, &name(&stage.agents()[0]));
    await_ready(stage, "redirector");
    for round in 1..=ROUNDS {
        let load = Load::of_shim(stage, vip, 40).unwrap();
        let started = Instant::now();
        let old = name(&stage.agents()[0]);
        stage.kubectl().apply(&second_pod(stage).to_string()).unwrap();
        await_ready(stage, NEXT);
        assert_eq!(role(stage, NEXT), "ready to take over\n");
        remove(stage, &old);
        // The DaemonSet's next pod is a standby of this one.
        await_ready(stage, "redirector");
        assert_eq!(role(stage, NEXT), "the agent serves\n");
        remove(stage, NEXT);
        let agent = name(&stage.agents()[0]);
        assert_ne!(agent, old);
        let serves = || Ok(role(stage, &agent) == "the agent serves\n");
        until("the DaemonSet's pod serves", LIMIT, serves).unwrap();
        eprintln!("hand-overs of round {round}: {:.1?}", started.elapsed());
        load.finish().unwrap_or_else(|error| panic!("{error:#}\n{}", stage.agent_logs()));
    }
}

/// As the DaemonSet makes them, beside it.
fn second_pod(stage: &Stage) -> Value {
    let daemon_set = stage.kubectl().get(&[&["ds", "redirector"][..], &SYSTEM].concat()).unwrap();
    let mut spec = daemon_set["spec"]["template"]["spec"].clone();
    spec["nodeName"] = json!(cluster::NODE);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": NEXT,
            "namespace": "kube-system",
            "labels": {"app.kubernetes.io/name": NEXT}
        },
        "spec": spec
    })
}

/// Returns when the pod has ended.
fn remove(stage: &Stage, pod: &str) {
    stage.kubectl().ok(&[&["delete", "pod", pod][..], &SYSTEM].concat()).unwrap();
}

fn await_ready(stage: &Stage, label: &str) {
    until("the pod is ready", LIMIT, || Ok(stage.are_ready(label)))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.agent_logs()));
}

fn role(stage: &Stage, pod: &str) -> String {
    let exec = ["exec", pod, "--", "redirector", "ready"];
    stage.kubectl().run(&[&SYSTEM[..], &exec].concat()).unwrap().stdout
}

fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}
