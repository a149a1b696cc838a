//! `cargo xtask demo`: the whole job on one machine, as a transcript.
//!
//! It starts a customer, a node and an executor of the test bed and the agent with the documented
//! configuration, and plays steps; each shows its commands and checks their results. It leaves
//! nothing behind, not even after an interruption.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use testbed::{agent, leftovers};

use super::fixture::{Fixture, find_binary};
use super::steps::{STEPS, Step};
use super::transcript::{Transcript, seconds};
use crate::build;

/// Later steps are skipped after this time; a demo usually takes some ten seconds.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Arguments of `cargo xtask demo`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep everything running after the last step, and print how to enter it
    #[arg(long)]
    keep: bool,
    /// Play only these steps
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    only: Vec<String>,
    /// List the steps, and play none
    #[arg(long)]
    list: bool,
    /// The redirector to run [default: the release binary of `cargo xtask build`]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The agent's configuration [default: the documented one, deploy/redirector.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Plays the demo; fails if any step fails.
pub(crate) fn run(args: Args) -> Result<()> {
    let steps = select_steps(&args.only)?;
    let mut transcript = Transcript::new();
    if args.list {
        steps.iter().for_each(|step| transcript.line(format!("{:<10} {}", step.key, step.title)));
        return Ok(());
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "the demo creates namespaces, cgroups and eBPF programs: run it as root"
    );
    if args.binary.is_none() {
        build::ensure_with_tools()?;
    }
    let binary = find_binary(args.binary.as_deref())?;
    let config = match &args.config {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("failed to read {}", path.display()))?,
        None => agent::documented_config()?,
    };

    let started = Instant::now();
    introduce(&transcript);
    let mut fixture =
        Fixture::start(&transcript, &binary, &config).context("failed to start the demo")?;
    let startup = started.elapsed();
    for step in steps {
        if started.elapsed() > TIME_LIMIT {
            transcript.skip(step.title, "the demo is taking too long");
            continue;
        }
        transcript.step(step.title, |log| (step.play)(&mut fixture, log));
    }
    let failed = transcript.records().iter().filter(|record| !record.failures.is_empty()).count();
    if failed > 0 {
        transcript.heading("The agent's log ends with");
        transcript.dimmed(&fixture.agent.log_tail());
    }
    if args.keep {
        keep(&transcript, &fixture)?;
    }
    drop(fixture);
    conclude(
        &transcript,
        &[format!("{} to start, {} in total", seconds(startup), seconds(started.elapsed()))],
    )
}

fn select_steps(only: &[String]) -> Result<Vec<&'static Step>> {
    if let Some(unknown) = only.iter().find(|key| !STEPS.iter().any(|step| step.key == **key)) {
        let known: Vec<&str> = STEPS.iter().map(|step| step.key).collect();
        bail!("there is no step {unknown}; the steps are {}", known.join(", "));
    }
    Ok(STEPS
        .iter()
        .filter(|step| only.is_empty() || only.iter().any(|key| key == step.key))
        .collect())
}

fn introduce(transcript: &Transcript) {
    transcript.heading("redirector: a private registry reached through its public load balancer");
    transcript.line(
        "  A job needs artifactory.internal.company.net. Its owner exposes it through the load\n  \
         balancers of artifactory.public.company.net, which admit two addresses and pass TLS\n  \
         through. Nothing in the job changes. Each command is shown as it is run.\n",
    );
    transcript.dimmed(
        "    executor 10.61.1.2 ── node 198.51.100.1, .2 ── 203.0.113.7, .8 ── registry\n\
         \u{20}   a job, its cgroup     redirector               HAProxy            10.20.0.10",
    );
    transcript.heading("Starting");
}

fn keep(transcript: &Transcript, fixture: &Fixture) -> Result<()> {
    let places = [
        ("executor", fixture.executor.sandbox(), "the job: its cgroup, its network"),
        ("guest", fixture.executor.outside(), "the same network, another cgroup"),
        ("node", fixture.rig.node.sandbox(), "where `redirector` runs: try `redirector status`"),
        (
            "customer",
            fixture.rig.customer.sandbox(),
            "load balancers, registry, DNS server; their logs are in its home",
        ),
    ];
    transcript.heading(
        "Everything keeps running. As root in another terminal (a shell, or the given command):",
    );
    for (name, sandbox, what) in places {
        transcript.line(format!("  {:<74} {what}", sandbox.shell_script(name)?.display()));
    }
    transcript.heading("Press Enter or Ctrl-C here to remove it.");
    let mut line = String::new();
    // Without a terminal, wait for a signal.
    if !matches!(std::io::stdin().read_line(&mut line), Ok(length) if length > 0) {
        loop {
            std::thread::park();
        }
    }
    Ok(())
}

fn conclude(transcript: &Transcript, closing: &[String]) -> Result<()> {
    let left = leftovers()?;
    let records = transcript.records();
    let failed = records.iter().filter(|record| !record.failures.is_empty()).count();
    let mut lines = vec![format!("{} of {} steps passed", records.len() - failed, records.len())];
    lines.extend_from_slice(closing);
    lines.push(match left.as_slice() {
        [] => "nothing left behind: no process, namespace, mount, cgroup or file".to_owned(),
        paths => format!(
            "left behind: {}",
            paths
                .iter()
                .map(|path: &PathBuf| path.as_path())
                .map(Path::to_string_lossy)
                .collect::<Vec<_>>()
                .join(", ")
        ),
    });
    transcript.summary(&lines);
    ensure!(failed == 0, "{failed} of {} steps failed", records.len());
    ensure!(left.is_empty(), "the demo left something behind");
    Ok(())
}
