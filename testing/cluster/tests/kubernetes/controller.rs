//! The controller in the chart's pods, with the agent of a real node: from `helm install` to the
//! removal of the custom resources.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testbed::{process::until, topology::PUBLIC_NAME};

use crate::{
    leftovers::leaves_nothing,
    pods::{fetch_from, idle},
    stage::{LIMIT, Stage, values},
};

pub(crate) const CLIENT: &str = "client";
/// The contract.
const LIVE: Duration = Duration::from_secs(5);
const COPY: &str = "/var/lib/redirector/cluster-routes.json";
const SYSTEM: [&str; 2] = ["-n", "kube-system"];
/// What docs/kubernetes.md deletes at the end.
const DEFINITIONS: [&str; 3] = [
    "redirectroutes.redirector.dev",
    "redirectrouteslices.redirector.dev",
    "redirectnodes.redirector.dev",
];

#[test]
fn the_controller_works_in_its_pods() {
    let stage = Stage::start();
    install(&stage);
    await_client(&stage);
    two_replicas_run_without_privileges(&stage);
    a_route_is_live_in_a_pod(&stage);
    the_other_replica_takes_over(&stage);
    going_back_removes_the_copy(&stage);
    routes_outlive_the_release(&stage);
    nothing_was_forbidden(&stage);
    leaves_nothing(&stage);
    the_resources_go_last(&stage);
}

fn install(stage: &Stage) {
    let mut values = values();
    values["controller"] = json!({"enabled": true});
    let started = Instant::now();
    stage.helm().install(&values).unwrap_or_else(|error| {
        let label = "app.kubernetes.io/name in (redirector,redirector-controller)";
        panic!("{error:#}\n{}", stage.report("kube-system", label))
    });
    eprintln!("helm install --wait with a controller: {:.1?}", started.elapsed());
}

/// Starts a pod that connects when it is asked to.
pub(crate) fn await_client(stage: &Stage) {
    stage.kubectl().apply(&idle(CLIENT).to_string()).unwrap();
    stage.kubectl().ok(&["wait", "--for=condition=Ready", "--timeout=90s", "pod", CLIENT]).unwrap();
}

/// They have an account of their own, no capability, and a user that is nobody on the node.
fn two_replicas_run_without_privileges(stage: &Stage) {
    let pods = controllers(stage);
    assert_eq!(pods.len(), 2, "{pods:?}");
    let holder = await_holder(stage, "");
    let names: Vec<_> = pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap()).collect();
    assert!(names.contains(&holder.as_str()), "{holder} of {names:?}");
    let line = "for folder in /proc/[0-9]*; do \
        tr '\\0' ' ' <$folder/cmdline | grep -q '^redirector controller' && \
        grep -E '^(Uid|CapPrm|CapBnd|NoNewPrivs|Seccomp):' $folder/status; done";
    let found = stage.cluster.on_node(line).unwrap().stdout;
    let one = "Uid:\t65532\t65532\t65532\t65532\nCapPrm:\t0000000000000000\n\
        CapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
    assert_eq!(found, one.repeat(2));
}

fn a_route_is_live_in_a_pod(stage: &Stage) {
    goes_live(stage, "git", &json!({"source": "git.internal", "destination": PUBLIC_NAME}));
    await_applied(stage, "git");
    let table = stage.kubectl().ok(&["get", "redirectroutes"]).unwrap();
    let line = table.lines().nth(1).unwrap();
    let words: Vec<_> = line.split_whitespace().take(6).collect();
    assert_eq!(words, ["git", "git.internal", PUBLIC_NAME, "True", "1", "1"], "{table}");
    // Changed in place.
    let nowhere = json!({"source": "git.internal", "addresses": ["203.0.113.250"]});
    apply(stage, "git", &nowhere);
    await_applied(stage, "git");
    assert!(!fetches(stage, "git.internal"));
    let wrong = json!({"source": "GIT.internal", "destination": PUBLIC_NAME});
    apply(stage, "second", &wrong);
    let refused = |status: &Value| reason(status, "Accepted") == "Conflict";
    await_status(stage, "second", refused);
    stage.kubectl().ok(&["delete", "redirectroute", "git"]).unwrap();
    let accepted = |status: &Value| reason(status, "Accepted") == "Valid";
    await_status(stage, "second", accepted);
    until("the second route is live", LIMIT, || Ok(fetches(stage, "git.internal"))).unwrap();
}

/// The kubelet's SIGTERM releases the Lease.
fn the_other_replica_takes_over(stage: &Stage) {
    let holder = await_holder(stage, "");
    let delete = ["delete", "pod", "--wait=false", &holder];
    stage.kubectl().ok(&[&SYSTEM[..], &delete].concat()).unwrap();
    let started = Instant::now();
    let next = await_holder(stage, &holder);
    eprintln!("another replica works after {:.1?}", started.elapsed());
    assert_ne!(next, holder);
    goes_live(stage, "later", &json!({"source": "later.internal", "destination": PUBLIC_NAME}));
    let is_whole = || Ok(controllers(stage).len() == 2);
    until("two replicas run again", LIMIT, is_whole).unwrap();
}

/// As docs/kubernetes.md states. The custom resources stay.
fn going_back_removes_the_copy(stage: &Stage) {
    assert!(stage.cluster.on_node(&format!("test -s {COPY}")).unwrap().status.success());
    stage.kubectl().ok(&["delete", "redirectroutes", "--all"]).unwrap();
    stage.helm().upgrade(&json!({"controller": {"enabled": false}})).unwrap();
    let is_gone = || Ok(!stage.cluster.on_node(&format!("test -e {COPY}"))?.status.success());
    until("the agent's copy is gone", LIMIT, is_gone).unwrap();
    until("the replicas are gone", LIMIT, || Ok(controllers(stage).is_empty())).unwrap();
    assert!(!fetches(stage, "later.internal"));
    assert_eq!(stage.kubectl().ok(&["get", "redirectroutes", "-o", "name"]).unwrap(), "");
    stage.helm().upgrade(&json!({"controller": {"enabled": true}})).unwrap();
    goes_live(stage, "back", &json!({"source": "back.internal", "destination": PUBLIC_NAME}));
}

/// A release that is installed again takes over what the last one left.
fn routes_outlive_the_release(stage: &Stage) {
    leaves_nothing(stage);
    let left = stage.kubectl().ok(&["get", "redirectroutes", "-o", "name"]).unwrap();
    assert_eq!(left, "redirectroute.redirector.dev/back\n");
    let nodes = [&["get", "redirectnodes", "-o", "name"][..], &SYSTEM].concat();
    until("the node's report is gone", LIMIT, || Ok(stage.kubectl().ok(&nodes)?.is_empty()))
        .unwrap();
    install(stage);
    until("the route is live again", LIMIT, || Ok(fetches(stage, "back.internal"))).unwrap();
    await_applied(stage, "back");
}

/// A right that an account lacks would only delay something, at first.
fn nothing_was_forbidden(stage: &Stage) {
    let line = "grep -rih forbidden /var/log/pods/kube-system_*";
    let found = stage.cluster.on_node(line).unwrap().stdout;
    assert_eq!(found, "");
}

fn the_resources_go_last(stage: &Stage) {
    stage.kubectl().ok(&[&["delete", "crd"][..], &DEFINITIONS].concat()).unwrap();
    let left = ["get", "crd,role,rolebinding,lease", "-A", "-o", "name"];
    let left = stage.kubectl().ok(&left).unwrap();
    assert!(!left.contains("redirect"), "{left}");
}

/// Applies a route, while a pod tries to connect to its source.
pub(crate) fn goes_live(stage: &Stage, name: &str, spec: &Value) {
    let source = spec["source"].as_str().unwrap();
    let line = format!("until ( {} ) 2>/dev/null; do sleep 0.1; done", fetch_from(source));
    let kubectl = stage.kubectl().clone();
    let client = thread::spawn(move || {
        let done = kubectl.ok(&["exec", CLIENT, "--", "timeout", "90", "bash", "-c", &line]);
        done.map(|_| Instant::now())
    });
    let started = Instant::now();
    apply(stage, name, spec);
    // How long kubectl takes to start is not ours.
    let applied = Instant::now();
    let connected = client.join().unwrap().unwrap_or_else(|error| panic!("{error:#}"));
    let (all, ours) = (connected - started, connected.saturating_duration_since(applied));
    eprintln!("kubectl apply to a pod's connect: {all:.1?}, of which after kubectl {ours:.1?}");
    assert!(ours < LIVE, "{ours:?}\n{}", stage.agent_logs());
}

pub(crate) fn fetches(stage: &Stage, name: &str) -> bool {
    let words = ["exec", CLIENT, "--", "timeout", "10", "bash", "-c", &fetch_from(name)];
    stage.kubectl().run(&words).unwrap().status.success()
}

fn apply(stage: &Stage, name: &str, spec: &Value) {
    let route = json!({
        "apiVersion": "redirector.dev/v1alpha1",
        "kind": "RedirectRoute",
        "metadata": {"name": name},
        "spec": spec,
    });
    stage.kubectl().apply(&route.to_string()).unwrap();
}

/// The status describes what was applied last, and the node has it.
pub(crate) fn await_applied(stage: &Stage, name: &str) {
    await_status(stage, name, |status| {
        let numbers = ["nodes", "applied", "failing"].map(|key| status[key].as_u64());
        reason(status, "Accepted") == "Valid"
            && reason(status, "Applied") == "Applied"
            && numbers == [Some(1), Some(1), Some(0)]
    });
}

fn await_status(stage: &Stage, name: &str, holds: impl Fn(&Value) -> bool) {
    let route = || stage.kubectl().get(&["redirectroute", name]).unwrap();
    let is_so = || {
        let route = route();
        let is_new = route["status"]["observedGeneration"] == route["metadata"]["generation"];
        Ok(is_new && holds(&route["status"]))
    };
    until("the status", LIMIT, is_so)
        .unwrap_or_else(|error| panic!("{error:#}: {}\n{}", route(), stage.agent_logs()));
}

/// The reason of a condition.
fn reason<'a>(status: &'a Value, of: &str) -> &'a str {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == of);
    found.and_then(|condition| condition["reason"].as_str()).unwrap_or_default()
}

/// Who holds the Lease, as soon as it is another one than `before`.
fn await_holder(stage: &Stage, before: &str) -> String {
    let lease = || {
        let lease = stage.kubectl().get(&["-n", "kube-system", "lease", "redirector-controller"]);
        let lease = lease.unwrap_or_default();
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    };
    let is_new = || Ok(![before, ""].contains(&lease().as_str()));
    until("a replica holds the Lease", LIMIT, is_new).unwrap();
    lease()
}

/// The pods of the controller that run and are not being removed.
fn controllers(stage: &Stage) -> Vec<Value> {
    stage.pods("redirector-controller")
}
