//! What the product must do on a real Kubernetes. `cargo xtask kube` runs these tests.

mod controller;
mod fleet;
mod installed;
mod kustomize;
mod leftovers;
mod load;
mod neighbours;
mod pods;
mod routes;
mod stage;
mod surge;

use std::{
    thread,
    time::{Duration, Instant},
};

use leftovers::leaves_nothing;
use load::{Load, start_clients};
use neighbours::{leaves_resolvers_out, redirects_steps_of_dind};
use pods::{container, fetch, job, spec};
use serde_json::json;
use stage::{LIMIT, Stage, values};
use testbed::{process::until, topology::INTERNAL_NAME};

/// BPF, NET_ADMIN and NET_BIND_SERVICE.
const CAPABILITIES: &str = "0000008000001400";

/// One test, since starting the cluster takes most of its time; its order is that of an
/// installation's life.
#[test]
fn the_chart_lives_on_a_real_cluster() {
    let stage = Stage::start();
    let took = installs_beside_a_job(&stage);
    let pod = &stage.agents()[0];
    let started = &pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"];
    let created = &pod["metadata"]["creationTimestamp"];
    // Ten seconds are the contract; a busy machine takes longer.
    eprintln!("helm install to ready: {took:.1?}; pod {created}, its container {started}");
    has_the_documented_privileges(&stage);
    redirects_pods_of_every_kind(&stage);
    its_tools_work(&stage);
    its_test_succeeds(&stage);
    let vip = start_clients(&stage).unwrap();
    its_tools_enter_a_pod(&stage);
    for round in 1..=3 {
        updates_under_load(&stage, &vip, round);
    }
    is_killed_under_load(&stage, &vip);
    surge::hands_over_under_load(&stage, &vip);
    leaves_nothing(&stage);
}

/// The taint keeps the job away until the agent serves. Helm waits ten seconds more, since a pod
/// counts as available only then.
fn installs_beside_a_job(stage: &Stage) -> Duration {
    stage.taint();
    let fetches = ["one", "two", "main"].map(|name| container(name, &fetch()));
    let job = job("sg-executor-job-first", &spec(fetches.into()));
    let started = Instant::now();
    let took = thread::scope(|scope| {
        let applied = scope.spawn(|| stage.kubectl().apply(&job.to_string()));
        let ready = scope.spawn(|| {
            let ready = until("the agent is ready", LIMIT, || Ok(stage.are_ready("redirector")));
            ready.map(|()| started.elapsed())
        });
        let label = "app.kubernetes.io/name=redirector";
        let installed = stage.helm().install(&values());
        installed
            .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.report("kube-system", label)));
        applied.join().unwrap().unwrap();
        ready.join().unwrap().unwrap()
    });
    stage.assert_succeeds("sg-executor-job-first");
    took
}

fn has_the_documented_privileges(stage: &Stage) {
    let line = "for status in /proc/[0-9]*/status; do grep -q '^Name:.redirector$' $status && \
        grep -E '^(Cap(Eff|Prm|Bnd)|NoNewPrivs|Seccomp):' $status; done";
    let text = stage.cluster.on_node(line).unwrap().stdout;
    let expected = format!(
        "CapPrm:\t{CAPABILITIES}\nCapEff:\t{CAPABILITIES}\nCapBnd:\t{CAPABILITIES}\n\
         NoNewPrivs:\t1\nSeccomp:\t2\n"
    );
    assert_eq!(text, expected);
}

fn redirects_pods_of_every_kind(stage: &Stage) {
    let fetches = || vec![container("main", &fetch())];
    let mut host_network = spec(fetches());
    host_network["hostNetwork"] = json!(true);
    stage.kubectl().apply(&job("host-network", &host_network).to_string()).unwrap();
    stage.assert_succeeds("host-network");
    redirects_steps_of_dind(stage);
    leaves_resolvers_out(stage);
}

fn its_tools_work(stage: &Stage) {
    for (words, expected) in [
        (vec!["status"], "redirecting 1 route for"),
        (vec!["explain", INTERNAL_NAME], "redirected to one of 2 eligible backends"),
        (vec!["verify", INTERNAL_NAME], "tls      ok"),
        (vec!["events"], "pod default/sg-executor-job-first-"),
    ] {
        let done = stage.exec(&words);
        assert!(done.status.success(), "{words:?}\n{}", done.text());
        assert!(done.stdout.contains(expected), "{words:?}\n{}", done.text());
        eprintln!("{words:?}\n{}", done.text());
    }
}

fn its_test_succeeds(stage: &Stage) {
    let release = stage.helm().test().unwrap_or_else(|error| {
        let label = "app.kubernetes.io/name=redirector-test";
        panic!("{error:#}\n{}", stage.report("kube-system", label))
    });
    let hook = &release["hooks"][0];
    assert_eq!((&hook["name"], &hook["kind"]), (&json!("redirector-test"), &json!("Pod")));
    assert_eq!(hook["last_run"]["phase"], "Succeeded", "{hook}");
    // Helm's library leaves it to the caller, and the chart's removal does not know it.
    stage.kubectl().ok(&["-n", "kube-system", "delete", "pod", "redirector-test"]).unwrap();
}

/// By a process of the pod, as numbered on the node.
fn its_tools_enter_a_pod(stage: &Stage) {
    stage.helm().upgrade(&json!({"tools": {"enabled": true}})).unwrap();
    let pod = stage.kubectl().get(&["pod", load::POD]).unwrap();
    let id = pod["metadata"]["uid"].as_str().unwrap();
    let line =
        format!("find /sys/fs/cgroup -path '*{id}*' -name cgroup.procs | xargs cat | sort -nu");
    let pids = stage.cluster.on_node(&line).unwrap().stdout;
    let pid = pids.lines().last().unwrap();
    for (verb, expected) in [("explain", "redirected to one of 2"), ("verify", "works from")] {
        let done = stage.exec_in("redirector-tools", &[verb, INTERNAL_NAME, "--pid", pid]);
        assert!(done.status.success(), "{verb}\n{}", done.text());
        assert!(done.stdout.contains(expected) && done.stdout.contains(id), "{}", done.text());
        eprintln!("{verb} --pid {pid}\n{}", done.text());
    }
    stage.helm().upgrade(&json!({"tools": {"enabled": false}})).unwrap();
}

fn updates_under_load(stage: &Stage, vip: &str, round: u32) {
    let before = stage.agents();
    let load = Load::start(stage, vip, 30).unwrap();
    let started = Instant::now();
    let change = json!({"podAnnotations": {"round": round.to_string()}});
    stage.helm().upgrade(&change).unwrap();
    until("only the new agent is left", LIMIT, || Ok(stage.agents().len() == 1)).unwrap();
    eprintln!("rolling update {round}: {:.1?}", started.elapsed());
    assert_ne!(before[0]["metadata"]["name"], stage.agents()[0]["metadata"]["name"]);
    load.finish().unwrap_or_else(|error| panic!("{error:#}\n{}", stage.agent_logs()));
}

fn is_killed_under_load(stage: &Stage, vip: &str) {
    let restarts = || stage.agents()[0]["status"]["containerStatuses"][0]["restartCount"].as_u64();
    let before = restarts();
    let load = Load::start(stage, vip, 20).unwrap();
    stage.cluster.on_node("kill -9 $(pidof redirector)").unwrap().success().unwrap();
    until("the agent is restarted", LIMIT, || Ok(restarts() > before)).unwrap();
    load.finish().unwrap_or_else(|error| panic!("{error:#}\n{}", stage.agent_logs()));
}
