//! `cargo xtask bench connect`: what the redirector costs a connect, next to nothing at all, to
//! programs that do nothing, and to its peers.
//!
//! The variants take turns within one run, on one core, in batches of a millisecond or two. What is
//! judged are ratios of neighbours in time, so that a machine that does other things meanwhile
//! disturbs both sides alike. See `bench/README.md`.

pub mod agent;
mod bpf;
pub mod bulk;
pub mod dns;
mod host;
mod measure;
mod plan;
mod plot;
pub mod promises;
mod report;
mod scene;
mod statistics;
pub mod worker;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub use self::report::{HookCost, Ratio, Report, Scenario, Target, Timing};
pub use self::statistics::Spread;
use testbed::workspace;

/// Arguments of `cargo xtask bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What is measured.
    #[command(subcommand)]
    pub what: What,
}

/// What is measured.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum What {
    /// The cost of a connect: missed, redirected, and by the peers' ways
    Connect(Options),
    /// Queries a second, latency and memory of the DNS shim, beside unbound and dnsmasq
    Dns(dns::Options),
    /// What the agent costs, and how soon a route change is live
    Agent(Options),
    /// How soon a pool full of routes is in the kernel, and one route's change
    Bulk(bulk::Options),
}

/// How a benchmark runs.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// A few rounds of everything, to see that it works; its figures say little
    #[arg(long)]
    pub quick: bool,
    /// The redirector to measure [default: the release binary of `cargo xtask build`]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Where the results go [default: bench/results; nowhere with --quick]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

impl Options {
    /// Where the results go, if anywhere.
    fn folder(&self) -> Option<PathBuf> {
        self.output
            .clone()
            .or_else(|| (!self.quick).then(|| workspace::root().join("bench/results")))
    }

    /// The redirector to measure, once it is known that this can be done here.
    fn measurable(&self) -> Result<PathBuf> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the benchmark makes namespaces, cgroups and eBPF programs: run it as root"
        );
        let binary = self.binary.clone().unwrap_or_else(workspace::release_binary);
        // Absolute, since programs of the rig start in folders of their own.
        binary.canonicalize().with_context(|| {
            format!("there is no {}: run `cargo xtask build` first", binary.display())
        })
    }
}

impl Args {
    /// Whether the release binary must be built first.
    #[must_use]
    pub fn wants_build(&self) -> bool {
        match &self.what {
            What::Connect(options) | What::Agent(options) => options.binary.is_none(),
            What::Bulk(options) => options.common.binary.is_none(),
            What::Dns(_) => false,
        }
    }

    /// The example of the product that must be built first.
    #[must_use]
    pub fn wants_example(&self) -> Option<&'static str> {
        match &self.what {
            What::Bulk(options) if options.program.is_none() => Some(bulk::EXAMPLE),
            _ => None,
        }
    }
}

/// Runs what the arguments name, prints the result as a table, and writes it into the results'
/// folder. Whether every target was met is in the table; a missed one is no error.
pub fn run(args: &Args) -> Result<()> {
    let options = match &args.what {
        What::Connect(options) => options,
        What::Dns(options) => return dns::run(options),
        What::Agent(options) => return agent::run(options),
        What::Bulk(options) => return bulk::run(options),
    };
    let report = connect(options)?;
    print!("{}", report.table());
    if let Some(folder) = options.folder() {
        write(&report, &folder)?;
        eprintln!("written to {}", folder.join("connect.{json,md,svg}").display());
    }
    Ok(())
}

/// Measures connects; needs root. Takes less than three minutes, and some seconds when it is quick.
pub fn connect(options: &Options) -> Result<Report> {
    let binary = options.measurable()?;
    let started = Instant::now();
    let effort = if options.quick { plan::Effort::QUICK } else { plan::Effort::FULL };
    let mut report = report::Report::begin()?;
    plan::carry_out(&binary, &effort, &mut report)?;
    report.finish(Duration::as_secs_f64(&started.elapsed()));
    Ok(report)
}

/// Writes `connect.json`, `connect.md` and `connect.svg` into `folder`.
pub fn write(report: &Report, folder: &Path) -> Result<()> {
    write_files(
        folder,
        &[
            ("connect.json", json(report)?),
            ("connect.md", report.markdown()),
            ("connect.svg", plot::svg(report)),
        ],
    )
}

/// A report as a file of JSON.
fn json(report: &impl serde::Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(report).context("failed to write the report as JSON")? + "\n")
}

fn write_files(folder: &Path, files: &[(&str, String)]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    files.iter().try_for_each(|(name, text)| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    })
}
