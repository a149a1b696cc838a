//! The installation with Kustomize, and the status page through `kubectl port-forward`.

use std::fs;

use serde_json::{Value, json};
use testbed::topology::PUBLIC_NAME;

use crate::{
    controller::{CLIENT, await_applied, await_client, fetches, goes_live},
    installed::{objects_of_base, remove_rules},
    leftovers::assert_nothing_is_left,
    stage::{LIMIT, Stage},
};

const SOURCE: &str = "git.internal";
/// kubectl runs on the node, whose port 9464 is the agent's own.
const PORTS: &str = "19464:9464";
const URL: &str = "http://localhost:19464";
/// Of the pods that have unloaded.
const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10";

#[test]
fn kustomize_installs_what_kubectl_forwards() {
    let stage = Stage::start();
    let folder = folder(&stage, "cluster");
    stage.kubectl().ok(&["apply", "-k", &folder]).unwrap();
    for workload in ["ds/redirector", "deploy/redirector-controller"] {
        let rollout = ["-n", "kube-system", "rollout", "status", "--timeout=90s", workload];
        stage.kubectl().ok(&rollout).unwrap_or_else(|error| {
            let label = "app.kubernetes.io/name in (redirector,redirector-controller)";
            panic!("{error:#}\n{}", stage.report("kube-system", label))
        });
    }
    await_client(&stage);
    goes_live(&stage, "git", &json!({"source": SOURCE, "destination": PUBLIC_NAME}));
    await_applied(&stage, "git");
    let route = stage.kubectl().ok(&["get", "redirectroute", "git", "-o", "yaml"]).unwrap();
    assert!(route.contains("\nstatus:\n  applied: 1\n"), "{route}");
    shows_the_page(&stage);
    stage.kubectl().ok(&["delete", "-k", &folder]).unwrap();
    assert!(fetches(&stage, SOURCE), "the kernel redirects until `redirector unload`");
    unloads(&stage);
}

/// As docs/operator.md describes it.
fn unloads(stage: &Stage) {
    let folder = folder(stage, "unload");
    stage.kubectl().ok(&["apply", "-k", &folder]).unwrap();
    let rollout = ["-n", "kube-system", "rollout", "status", "--timeout=90s", "ds/redirector"];
    stage.kubectl().ok(&rollout).unwrap_or_else(|error| {
        let label = "app.kubernetes.io/name=redirector";
        panic!("{error:#}\n{}", stage.report("kube-system", label))
    });
    stage.kubectl().ok(&["delete", "-k", &folder]).unwrap();
    assert_nothing_is_left(stage);
    assert!(!fetches(stage, SOURCE));
}

/// A copy of the kustomization that fits Debian's older Kubernetes: see [`cluster::Helm`].
fn folder(stage: &Stage, base: &str) -> String {
    let folder = stage.rig().files().join(base);
    fs::create_dir(&folder).unwrap();
    let kustomization = format!("deploy/kustomize/{base}/kustomization.yaml");
    let kustomization = testbed::workspace::root().join(kustomization);
    fs::copy(kustomization, folder.join("kustomization.yaml")).unwrap();
    let text: String = objects_of_base(base).into_iter().map(older).collect();
    // The node has its own image for pods that wait.
    let text = text.replace(PAUSE_IMAGE, cluster::TOOLS_IMAGE);
    fs::write(folder.join("redirector.yaml"), text).unwrap();
    folder.display().to_string()
}

/// An object as Kubernetes 1.20 knows it, as a document of YAML.
fn older(mut object: Value) -> String {
    remove_rules(&mut object);
    match object["kind"].as_str() {
        Some("PodDisruptionBudget") => object["apiVersion"] = json!("policy/v1beta1"),
        Some("DaemonSet") => {
            object["spec"]["updateStrategy"]["rollingUpdate"] = json!({"maxUnavailable": 1});
        }
        _ => {}
    }
    format!("---\n{object}\n")
}

/// As docs/operator.md describes it.
fn shows_the_page(stage: &Stage) {
    let pod = stage.agents()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let words = ["-n", "kube-system", "port-forward", &pod, PORTS];
    let mut forward = stage.kubectl().start("port-forward", &words).unwrap();
    let curl = |path: &str| {
        let line = format!("curl -sS --no-buffer --max-time 5 {URL}{path}");
        stage.cluster.on_node(&line).unwrap().text()
    };
    forward.wait_ready(LIMIT, || Ok(curl("/").contains("<title>redirector</title>"))).unwrap();
    let status: Value = serde_json::from_str(&curl("/status.json")).unwrap();
    assert_eq!(status["state"], "ok", "{status}");
    assert_eq!(status["routes"][0]["source"], SOURCE, "{status}");
    assert!(fetches(stage, SOURCE));
    let events = curl("/events");
    let client = format!("\"name\":\"{CLIENT}\"");
    assert!(events.contains(SOURCE) && events.contains(&client), "{events}");
}
