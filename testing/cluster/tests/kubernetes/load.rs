//! Clients in a pod of the cluster, while something happens to the agent.

use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, ensure};
use cluster::Kubectl;
use serde_json::Value;
use testbed::{
    binaries,
    clients::{self, LoadOptions, LookupOptions, Mapped},
    customer::resolver,
    topology::{DNS_ADDRESS, INTERNAL_NAME, UNRELATED_NAME},
};

use crate::{
    pods::{container, pod, spec},
    stage::Stage,
};

/// The pod of the clients.
pub(crate) const POD: &str = "clients";
/// Look-ups a second.
const LOOKUPS: u32 = 50;
/// The agent itself, of which the chart's clients may ask.
const SHIM: &str = "169.254.20.53";

/// Programs of the pod that connect and look names up.
pub(crate) struct Load {
    runs: Vec<(&'static str, JoinHandle<Result<Value>>)>,
}

/// Starts the pod, and returns the internal name's virtual address there.
pub(crate) fn start_clients(stage: &Stage) -> Result<String> {
    let pod = pod(POD, "default", &spec(vec![container("main", "sleep 10000")]));
    stage.kubectl().apply(&pod.to_string())?;
    stage.kubectl().ok(&["wait", "--for=condition=Ready", "--timeout=90s", "pod", POD])?;
    let line = format!("getent ahostsv4 {INTERNAL_NAME} | head -n 1 | cut -d' ' -f1");
    let address = stage.kubectl().ok(&["exec", POD, "--", "bash", "-c", &line])?;
    Ok(address.trim().to_owned())
}

impl Load {
    /// A thousand connects a second, and look-ups.
    pub(crate) fn start(stage: &Stage, vip: &str, seconds: u32) -> Result<Self> {
        Self::with_lookups(stage, vip, seconds, lookups(DNS_ADDRESS, vip, seconds)?)
    }

    /// The same, with look-ups that the agent itself passes on.
    pub(crate) fn of_shim(stage: &Stage, vip: &str, seconds: u32) -> Result<Self> {
        let mut options = lookups(SHIM, vip, seconds)?;
        let (name, address) = (UNRELATED_NAME.to_owned(), resolver::address(UNRELATED_NAME));
        options.mapped.push(Mapped { name, address });
        Self::with_lookups(stage, vip, seconds, options)
    }

    fn with_lookups(
        stage: &Stage,
        vip: &str,
        seconds: u32,
        lookups: LookupOptions,
    ) -> Result<Self> {
        let target = format!("{vip}:8080").parse().context("no virtual address")?;
        let connects = LoadOptions::greeted_by(&["lb1", "lb2"], target, 1000, f64::from(seconds));
        let client = binaries::client()?.display().to_string();
        let run = |words: Vec<String>| {
            let (kubectl, client) = (stage.kubectl().clone(), client.clone());
            thread::spawn(move || run(&kubectl, &client, &words))
        };
        let lookups = lookups.arguments().split(' ').map(str::to_owned).collect();
        let runs =
            vec![("connects", run(clients::arguments(&connects))), ("look-ups", run(lookups))];
        Ok(Self { runs })
    }

    /// Waits for the end; fails unless every connect and every look-up succeeded.
    pub(crate) fn finish(self) -> Result<()> {
        for (kind, run) in self.runs {
            let report = run.join().ok().with_context(|| format!("the {kind} panicked"))??;
            eprintln!("{kind}: {report}");
            let total = report["attempted"].as_u64().or(report["sent"].as_u64()).unwrap_or(0);
            let good = report["connected"].as_u64().or(report["right"].as_u64());
            let wrong = report["wrong_banner"].as_u64().unwrap_or(0);
            ensure!(total > 0 && good == Some(total) && wrong == 0, "some {kind} failed: {report}");
        }
        Ok(())
    }
}

fn run(kubectl: &Kubectl, client: &str, words: &[String]) -> Result<Value> {
    let mut all = vec!["exec", POD, "--", client];
    all.extend(words.iter().map(String::as_str));
    let output = kubectl.ok(&all)?;
    let report = output.lines().last().context("a client printed nothing")?;
    serde_json::from_str(report).with_context(|| format!("not a report: {output}"))
}

fn lookups(server: &str, vip: &str, seconds: u32) -> Result<LookupOptions> {
    Ok(LookupOptions {
        server: format!("{server}:53").parse()?,
        rate: LOOKUPS,
        seconds: f64::from(seconds),
        mapped: vec![Mapped { name: INTERNAL_NAME.to_owned(), address: vip.parse()? }],
        unrelated: Vec::new(),
    })
}
