//! What the product must do on a real Kubernetes. `cargo xtask kube` runs these tests.

mod fleet;
mod installed;
mod load;
mod pods;
mod routes;
mod stage;

use std::time::{Duration, Instant};

use load::{Load, start_clients};
use pods::{container, fetch, job, pod, spec};
use serde_json::json;
use stage::{LIMIT, Stage, values};
use testbed::{process::until, topology::INTERNAL_NAME};

/// What an agent has on its node: pins, files, an address, routes and rules.
const LEFT: &str = "ls -A --ignore '*.debug' /sys/fs/bpf; \
    find /var/lib/redirector /run/redirector -type f; ip -4 addr show dev lo | grep 169.254; \
    ip route show table all | grep 198.18; ip rule show";
/// What the chart makes.
const OBJECTS: [&str; 5] = ["get", "all,cm,sa,clusterrole,clusterrolebinding", "-A", "-o", "name"];
/// BPF, NET_ADMIN and NET_BIND_SERVICE.
const CAPABILITIES: &str = "0000008000001400";

/// One test, since starting the cluster takes most of its time; its order is that of an
/// installation's life.
#[test]
fn the_chart_lives_on_a_real_cluster() {
    let stage = Stage::start();
    let took = installs_beside_a_job(&stage);
    eprintln!("helm install to ready: {took:.1?}");
    has_the_documented_privileges(&stage);
    redirects_pods_of_every_kind(&stage);
    its_tools_work(&stage);
    let vip = start_clients(&stage).unwrap();
    for round in 1..=3 {
        updates_under_load(&stage, &vip, round);
    }
    is_killed_under_load(&stage, &vip);
    leaves_nothing(&stage);
}

/// The taint keeps the job away until the agent serves.
fn installs_beside_a_job(stage: &Stage) -> Duration {
    stage.taint();
    let fetches = ["one", "two", "main"].map(|name| container(name, &fetch()));
    let started = Instant::now();
    stage
        .kubectl()
        .apply(&job("sg-executor-job-first", &spec(fetches.into())).to_string())
        .unwrap();
    let installed = stage.helm().install(&values());
    let label = "app.kubernetes.io/name=redirector";
    installed.unwrap_or_else(|error| panic!("{error:#}\n{}", stage.report("kube-system", label)));
    let took = started.elapsed();
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
    leaves_resolvers_out(stage);
}

/// A resolver there would pass virtual addresses on to clients elsewhere. It has none before the
/// API server knows its address.
fn leaves_resolvers_out(stage: &Stage) {
    let idle = spec(vec![container("main", "sleep 10000")]);
    stage.kubectl().apply(&pod("resolver", "kube-system", &idle).to_string()).unwrap();
    let pod = ["-n", "kube-system", "wait", "--for=condition=Ready", "pod/resolver"];
    stage.kubectl().ok(&[&pod[..], &["--timeout=90s"]].concat()).unwrap();
    let exec = ["-n", "kube-system", "exec", "resolver", "--", "bash", "-c", &fetch()];
    let is_left_out = || Ok(!stage.kubectl().run(&exec)?.status.success());
    until("the pod is left out", LIMIT, is_left_out).unwrap();
    assert!(is_left_out().unwrap(), "and stays so");
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

/// As docs/operator.md states.
fn leaves_nothing(stage: &Stage) {
    let unload = json!({"unload": {"enabled": true, "pauseImage": cluster::TOOLS_IMAGE}});
    stage.helm().upgrade(&unload).unwrap();
    stage.kubectl().ok(&["-n", "kube-system", "rollout", "status", "ds/redirector"]).unwrap();
    stage.helm().uninstall().unwrap();
    let left = stage.cluster.on_node(LEFT).unwrap().text();
    let rules = "0:\tfrom all lookup local\n32766:\tfrom all lookup main\n\
        32767:\tfrom all lookup default\n";
    assert_eq!(left, rules);
    let is_gone = || Ok(!stage.kubectl().ok(&OBJECTS)?.contains("redirector"));
    until("the objects are gone", LIMIT, is_gone).unwrap();
}
