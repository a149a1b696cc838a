//! `cargo xtask docs`: pictures of what commands print, taken from a real run for the
//! documentation.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::{agent, process, topology::INTERNAL_NAME};

use super::fixture::{Fixture, find_binary};
use super::picture;
use super::screenshots;
use super::transcript::Transcript;
use crate::build;

/// Longest time for one command.
const LIMIT: Duration = Duration::from_secs(60);
/// The terminal's columns.
const COLUMNS: usize = 170;

/// Arguments of `cargo xtask docs`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The redirector to run [default: the release binary of `cargo xtask build`]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The folder for the pictures
    #[arg(long, value_name = "DIRECTORY", default_value = "docs/captures")]
    into: PathBuf,
}

/// Takes every picture.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the captures need namespaces, cgroups and eBPF programs: run this as root"
    );
    if args.binary.is_none() {
        build::ensure_with_tools()?;
    }
    let binary = find_binary(args.binary.as_deref())?;
    let transcript = Transcript::new();
    let mut fixture = Fixture::start(&transcript, &binary, &agent::documented_config()?)
        .context("failed to start the fixture")?;
    std::fs::create_dir_all(&args.into)
        .with_context(|| format!("failed to create {}", args.into.display()))?;
    let authority = fixture.rig.node.sandbox().home().join("ca.pem");
    fixture.rig.node.sandbox().write(&authority, fixture.rig.customer.ca_pem())?;

    capture(&fixture, &args.into, "check", "redirector check")?;
    let verify = format!("redirector verify {INTERNAL_NAME} --ca ca.pem");
    capture(&fixture, &args.into, "verify", &verify)?;
    // One of the load balancers dies while a job works.
    run_job(&fixture, 60)?;
    fixture.balancers[0].stop()?;
    let first = fixture.balancers[0].address();
    process::until(&format!("{first} is ejected"), LIMIT, || {
        run_job(&fixture, 5)?;
        fixture.is_ejected(first)
    })?;
    capture(&fixture, &args.into, "status", "redirector status")?;
    // They last until the pictures are taken.
    let busy = process::spawn_lasting(fixture.executor.sandbox().shell(&connects(100_000)))?;
    let captured = capture(&fixture, &args.into, "top", "redirector top --once")
        .and_then(|()| capture(&fixture, &args.into, "events", "redirector events --limit 12"))
        .and_then(|()| screenshots::take(&fixture, &args.into));
    process::kill_tree(busy.id());
    finish(busy)?;
    captured
}

/// A shell command of the job that makes this many short connections.
fn connects(number: usize) -> String {
    format!(
        "for n in $(seq {number}); do curl -sk --max-time 5 -o /dev/null https://{INTERNAL_NAME}/; \
            done; true"
    )
}

fn run_job(fixture: &Fixture, connections: usize) -> Result<()> {
    fixture.executor.run(&connects(connections), LIMIT)?.success().map(drop)
}

fn finish(mut busy: std::process::Child) -> Result<()> {
    process::wait(&mut busy, LIMIT)?.context("the job did not end")?;
    Ok(())
}

/// Runs a command on the node in a terminal, and draws its output.
fn capture(fixture: &Fixture, into: &Path, name: &str, line: &str) -> Result<()> {
    let inside = format!(
        "cd {}; stty cols {COLUMNS} rows 50; {line}",
        fixture.rig.node.sandbox().home().display()
    );
    let mut command = fixture.rig.node.command("/usr/bin/script");
    command
        .args(["--quiet", "--return", "--command", &inside, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::null());
    let finished = process::finish(command, LIMIT)?;
    // `status` exits with 1 while it is degraded, as intended here.
    ensure!(!finished.stdout.trim().is_empty(), "`{line}` printed nothing: {}", finished.text());
    let file = into.join(format!("{name}.svg"));
    std::fs::write(&file, picture::svg(line, &finished.stdout))
        .with_context(|| format!("failed to write {}", file.display()))?;
    println!("{}", file.display());
    Ok(())
}
