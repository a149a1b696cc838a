//! A thousand agents, as the API server sees them: each with connections, a watch of the slices and
//! reports of its own. What they do is the agent's code; only the datapath is missing.

use std::{
    env, fs,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use cluster::ControlPlane;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use redirector::cluster::{AgentPod, RedirectNodeSpec, follow_slices, report};
use serde_json::{Value, json};
use testbed::{Rig, binaries, process::until};
use tokio::{runtime::Runtime, sync::watch};

use crate::{
    installed::{apply_all, kubeconfig_of, objects, start_controllers},
    stage::LIMIT,
};

const AGENTS: usize = 1000;
/// The variable with the number of seconds; ten minutes are 600.
const VARIABLE: &str = "REDIRECTOR_TEST_FLEET_SECONDS";
/// Without the variable.
const SECONDS: u32 = 60;
/// In these seconds, unless they are longer than [`LONGEST_ROUND`].
const CHANGES: u32 = 3;
/// From one change to the next.
const LONGEST_ROUND: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "kube-system";
/// A change reaches every node within the contract.
const LIVE: Duration = Duration::from_secs(5);
/// Of statuses, slices and the Lease, beside one report of each node.
const OTHER_WRITES: f64 = 60.0;
/// Of a slice, for each node.
const SLICE_BYTES: f64 = 4096.0;

struct Fleet {
    /// The revision that each agent has seen.
    seen: Arc<Vec<AtomicI64>>,
    /// Its threads are in the node's network.
    _runtime: Runtime,
}

impl Fleet {
    fn start(rig: &Rig, control: &ControlPlane) -> Self {
        let text = kubeconfig_of(control, "redirector");
        let build = || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(2).enable_all().build().unwrap()
        };
        let runtime = rig.node.sandbox().namespaces().run(build).unwrap();
        let seen: Arc<Vec<_>> = Arc::new((0..AGENTS).map(|_| AtomicI64::new(0)).collect());
        for number in 0..AGENTS {
            runtime.spawn(agent(text.clone(), number, Arc::clone(&seen)));
        }
        Self { seen, _runtime: runtime }
    }

    /// How many agents have seen this revision.
    fn reached(&self, revision: i64) -> usize {
        self.seen.iter().filter(|seen| seen.load(Ordering::Relaxed) >= revision).count()
    }

    fn await_all(&self, revision: i64) {
        until("all agents have it", LIMIT, || Ok(self.reached(revision) == AGENTS))
            .unwrap_or_else(|error| panic!("{error:#}: {} agents", self.reached(revision)));
    }
}

async fn agent(kubeconfig: String, number: usize, seen: Arc<Vec<AtomicI64>>) {
    let kubeconfig = Kubeconfig::from_yaml(&kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let (sender, mut slices) = watch::channel(None);
    tokio::spawn(follow_slices(client.clone(), NAMESPACE.into(), sender));
    let (reports, receiver) = watch::channel(None);
    let pod =
        AgentPod { node: format!("node-{number:04}"), namespace: NAMESPACE.into(), owner: None };
    tokio::spawn(report(client, pod, receiver));
    while slices.changed().await.is_ok() {
        let Some(followed) = slices.borrow_and_update().clone() else { continue };
        let slices = || followed.objects.values();
        let Some(revision) = slices().map(|slice| slice.revision).max() else { continue };
        let within = slices().map(|slice| slice.report_within_seconds).max().unwrap_or(1);
        let spec = RedirectNodeSpec {
            agent_version: "test".into(),
            revision,
            failing: 0,
            failing_routes: Vec::new(),
        };
        reports.send_replace(Some((spec, within)));
        seen[number].store(revision, Ordering::Relaxed);
    }
}

/// What the API server has done so far.
struct Load {
    at: Instant,
    watch_bytes: f64,
    writes: f64,
    seconds_of_cpu: f64,
}

impl Load {
    fn read(control: &ControlPlane) -> Self {
        let text = control.kubectl().ok(&["get", "--raw", "/metrics"]).unwrap();
        let sum = |name: &str, labels: &[&[&str]]| -> f64 {
            let lines = text.lines().filter(|line| {
                line.starts_with(name)
                    && labels.iter().all(|any| any.iter().any(|label| line.contains(label)))
            });
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        let slice: &[&str] = &["kind=\"RedirectRouteSlice\""];
        let ours: &[&str] = &["group=\"redirector.dev\"", "group=\"coordination.k8s.io\""];
        let writing: &[&str] =
            &["verb=\"APPLY\"", "verb=\"PATCH\"", "verb=\"PUT\"", "verb=\"POST\""];
        Self {
            at: Instant::now(),
            watch_bytes: sum("apiserver_watch_events_sizes_sum{", &[slice]),
            writes: sum("apiserver_request_total{", &[ours, writing]),
            seconds_of_cpu: cpu(control.api_pid()),
        }
    }

    fn since(&self, before: &Self) -> String {
        let seconds = (self.at - before.at).as_secs_f64();
        format!(
            "in {seconds:.1} s: {:.0} writes, {:.1} KiB of slices, {:.0} % of a core",
            self.writes - before.writes,
            (self.watch_bytes - before.watch_bytes) / 1024.0,
            (self.seconds_of_cpu - before.seconds_of_cpu) / seconds * 100.0,
        )
    }
}

/// User's and system's time.
fn cpu(pid: u32) -> f64 {
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let times = rest.split_whitespace().skip(11).take(2);
    times.map(|time| time.parse::<f64>().unwrap()).sum::<f64>() / TICKS
}

#[test]
fn a_change_for_a_thousand_agents_is_cheap() {
    let binary = binaries::find("redirector", "redirector", "redirector/src").unwrap();
    let rig = Rig::new().unwrap();
    let control = ControlPlane::start(&rig).unwrap();
    let (definitions, others) = objects();
    apply_all(&control, &definitions);
    apply_all(&control, &others);
    let _controllers = start_controllers(&rig, &control, &binary).unwrap();
    let fleet = Fleet::start(&rig, &control);
    apply_route(&control, 0);
    await_applied(&control, 0);
    let seconds = env::var(VARIABLE).map_or(SECONDS, |text| text.parse().unwrap());
    let whole = Duration::from_secs(seconds.into());
    let round = (whole / CHANGES).min(LONGEST_ROUND);
    let before = Load::read(&control);
    let mut number = 0;
    while before.at.elapsed() < whole {
        number += 1;
        let next = Instant::now() + round;
        changes(&control, &fleet, number);
        rests(&control, next);
    }
    eprintln!("{number} changes {}", Load::read(&control).since(&before));
}

/// One route more, on all nodes.
fn changes(control: &ControlPlane, fleet: &Fleet, number: usize) {
    let revision = fleet.seen[0].load(Ordering::Relaxed) + 1;
    let before = Load::read(control);
    let started = Instant::now();
    apply_route(control, number);
    fleet.await_all(revision);
    let live = started.elapsed();
    await_applied(control, number);
    let counted = started.elapsed();
    let after = Load::read(control);
    eprintln!("all agents after {live:.1?}, counted after {counted:.1?}; {}", after.since(&before));
    assert!(live < LIVE, "{live:?}");
    let agents = u32::try_from(AGENTS).map(f64::from).unwrap();
    assert!(after.writes - before.writes <= agents + OTHER_WRITES);
    assert!(after.watch_bytes - before.watch_bytes <= agents * SLICE_BYTES);
}

/// Nothing changes until then.
fn rests(control: &ControlPlane, end: Instant) {
    let before = Load::read(control);
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    let after = Load::read(control);
    eprintln!("nothing changes, {}", after.since(&before));
    assert!(after.writes - before.writes <= OTHER_WRITES);
}

fn apply_route(control: &ControlPlane, number: usize) {
    let route = json!({
        "apiVersion": "redirector.dev/v1alpha1",
        "kind": "RedirectRoute",
        "metadata": {"name": format!("r{number}")},
        "spec": {"source": format!("r{number}.internal"), "addresses": ["203.0.113.7"]},
    });
    control.kubectl().apply(&route.to_string()).unwrap();
}

/// Every node has reported the route.
fn await_applied(control: &ControlPlane, number: usize) {
    let name = format!("r{number}");
    let status =
        || -> Value { control.kubectl().get(&["redirectroute", &name]).unwrap()["status"].clone() };
    until("every node reports", LIMIT, || Ok(status()["applied"] == AGENTS))
        .unwrap_or_else(|error| panic!("{error:#}: {}", status()));
}
