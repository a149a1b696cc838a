//! `cargo xtask bench bulk`: how long it takes to write a full pool of routes to the kernel, and to
//! change one of them; and how long an agent takes to start with as many.
//!
//! The product's example `bulk` writes the maps as the agent does, and measures the times.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use testbed::{Agent, AgentOptions, Rig, process, workspace};

use crate::{
    options::{self, FULL_POOL, json, write_files},
    targets::{Figure, Report},
};

/// The product's example that writes the maps.
pub const EXAMPLE: &str = "bulk";

/// Longest time of the example, or of a command.
const LIMIT: Duration = Duration::from_secs(300);
/// The number of imported routes.
const IMPORTED: u32 = 10_000;

const EXPLANATION: &str = "\
    Times in the kernel are from the plan in memory to the end of the last call: the comparison \
    with the current state, the allocation, and the writes to the maps. \"With other backends\" \
    replaces every block and every backend ID. \"One after the other\" applies the same changes \
    in separate calls. One change is made among 65,535 other routes, 2,000 times in each round, \
    spread over the pool. \"Adopted\" is the start of a new process: it loads the programs and \
    reads every route back. An agent's start is from its process to READY=1. An import is \
    `redirector route import` from the start of its process to its end, with the state on disk.";

/// Arguments of `cargo xtask bench bulk`.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Options {
    /// Options of all benchmarks.
    #[command(flatten)]
    pub common: options::Options,
    /// The program that writes the maps [default: a release build of the example `bulk`]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
}

/// The output of the example: the times of all rounds, in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Times {
    /// From an empty kernel and a plan of 65,536 routes with two backends each to a kernel that has
    /// them all.
    pub filled: Vec<f64>,
    /// The processor time of that, which other work on the machine hardly affects.
    pub filled_processor: Vec<f64>,
    /// From these routes to the same number with other backends.
    pub replaced: Vec<f64>,
    /// The same, one change after the other.
    pub singly: Vec<f64>,
    /// The change of one route, among all others.
    pub one: Vec<f64>,
    /// From the pins to loaded programs, with every route read back.
    pub adopted: Vec<f64>,
    /// To an empty plan.
    pub withdrawn: Vec<f64>,
}

/// Measures, prints the result, and writes it into the results' folder.
pub fn run(options: &Options) -> Result<()> {
    let program = options.program.clone().unwrap_or_else(|| workspace::release_example(EXAMPLE));
    let rounds = if options.common.quick { 1 } else { 10 };
    let report = measure(&options.common, |rig| {
        let mut command = rig.node.command(&program);
        command.arg(BPFFS).arg(rounds.to_string());
        let output = process::finish(command, LIMIT)?
            .success()
            .with_context(|| format!("failed to run {}", program.display()))?
            .stdout;
        serde_json::from_str(&output).with_context(|| {
            format!("failed to parse the output of {}: {output}", program.display())
        })
    })?;
    let text = report.markdown("A pool full of routes", EXPLANATION);
    print!("{text}");
    let Some(folder) = options.common.folder() else { return Ok(()) };
    write_files(
        &folder,
        &[("bulk.json", json(&report)?), ("bulk.svg", report.svg("bulk")), ("bulk.md", text)],
    )?;
    eprintln!("written to {}", folder.join("bulk.{json,md,svg}").display());
    Ok(())
}

/// Where the maps are pinned, on the rig's node.
pub const BPFFS: &str = "/sys/fs/bpf/bulk";

/// Measures on a new rig; needs root. `kernel` runs the example that writes the maps.
pub fn measure(
    options: &options::Options,
    kernel: impl FnOnce(&Rig) -> Result<Times>,
) -> Result<Report> {
    let binary = options.measurable()?;
    let mut report = Report::begin();
    // A higher priority, as in the benchmark of connects: other work interrupts it less. Optional.
    let _ = rustix::process::setpriority_process(None, -15);
    let rig = Rig::new()?;
    let times = kernel(&rig)?;
    let mut add = |what: &str, unit: &str, limit: Option<f64>, values: Vec<f64>| {
        report.figures.push(Figure::of(what, unit, limit, values))
    };
    let milliseconds =
        |times: Vec<f64>| times.into_iter().map(|time| time / 1e3).collect::<Vec<_>>();
    add(
        "65,536 routes with two backends each, into an empty kernel",
        "ms",
        Some(500.0),
        milliseconds(times.filled),
    );
    add("the processor time of that", "ms", None, milliseconds(times.filled_processor));
    add("65,536 routes with other backends", "ms", Some(500.0), milliseconds(times.replaced));
    add("the same, one after the other", "ms", None, milliseconds(times.singly));
    add("65,536 routes withdrawn", "ms", None, milliseconds(times.withdrawn));
    add("65,536 routes adopted by a new process", "ms", None, milliseconds(times.adopted));
    add("the change of one route, from the plan", "µs", Some(100.0), times.one);

    let dns = rig.customer.dns_server()?;
    let many = if options.quick { 2000 } else { FULL_POOL };
    let imported = if options.quick { 1000 } else { IMPORTED };
    let mut agent =
        Agent::start(&rig.node, AgentOptions::with_config(&binary, &configuration(many)))?;
    add(
        &format!("an agent's first start with {many} routes in its file"),
        "s",
        None,
        vec![agent.ready_after().as_secs_f64()],
    );
    agent.restart()?;
    add("its second start", "s", None, vec![agent.ready_after().as_secs_f64()]);
    agent.sigterm()?;
    agent.write_config(&configuration(0))?;
    agent.restart()?;
    add(
        &format!("an import of {imported} routes"),
        "s",
        None,
        vec![import(&rig, &binary, imported)?],
    );
    report.finish();
    drop(dns);
    Ok(report)
}

/// The duration of an import, in seconds.
fn import(rig: &Rig, binary: &std::path::Path, number: u32) -> Result<f64> {
    let routes: Vec<Value> = (0..number)
        .map(|number| serde_json::json!({ "source": source(number), "destination": BACKENDS }))
        .collect();
    let file = rig.files().join("routes.json");
    std::fs::write(&file, serde_json::json!({ "routes": routes }).to_string())
        .with_context(|| format!("failed to write {}", file.display()))?;
    let mut import = rig.node.command(binary);
    import.args(["route", "import", "-o", "json"]).arg(&file);
    let finished = process::finish(import, LIMIT)?
        .success()
        .with_context(|| format!("failed to import {number} routes"))?;
    Ok(finished.took.as_secs_f64())
}

const BACKENDS: [&str; 2] = ["10.61.1.1", "10.61.1.2"];

fn configuration(routes: u32) -> String {
    let mut text = "[dns]\nupstreams = [\"203.0.113.53:53\"]\n".to_owned();
    for number in 0..routes {
        let _ = write!(
            text,
            "[[routes]]\nsource = \"{}\"\ndestination = {BACKENDS:?}\n",
            source(number)
        );
    }
    text
}

fn source(number: u32) -> String {
    format!("r{number}.internal.company.net")
}
