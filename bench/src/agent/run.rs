//! `cargo xtask bench agent`: what the agent costs and how soon a change is live: route changes
//! from the shell, cgroups that appear, memory, idle time, scrapes.
//!
//! The figures have targets instead of peers. Other work on the machine affects the times (hence
//! the load average in the report), not memory, and hardly processor time.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::fixture::Fixture;
use crate::{
    options::{FULL_POOL, Options, json, write_files},
    targets::{Figure, Report},
};

const EXPLANATION: &str = "\
    A route change is `redirector route set`, from the start of its process to its end. The next \
    connect, which was refused before the change, must succeed. A change writes one line of the \
    journal and syncs it once; \"the disk's part\" is the same by this program alone. A scrape is \
    timed from connect to the last byte. Memory is resident memory three seconds after the last \
    change. A pool of 65,536 addresses can lease 65,534.";

/// Measures, prints the result, and writes it into the results' folder.
pub fn run(options: &Options) -> Result<()> {
    let report = measure(options)?;
    let text = report.markdown("The agent", EXPLANATION);
    print!("{text}");
    let Some(folder) = options.folder() else { return Ok(()) };
    write_files(
        &folder,
        &[
            ("agent.json", json(&report)?),
            ("agent.svg", report.svg("the agent")),
            ("agent.md", text),
        ],
    )?;
    eprintln!("written to {}", folder.join("agent.{json,md,svg}").display());
    Ok(())
}

/// Milliseconds of each of `count` changes with the state in memory, without a disk.
fn changes_in_memory(binary: &Path, count: usize) -> Result<Vec<f64>> {
    let mut fixture = Fixture::new(binary, false)?;
    fixture.fill(10)?;
    fixture.changes(count)
}

/// Measures an agent of its own; needs root.
pub fn measure(options: &Options) -> Result<Report> {
    let binary = options.measurable()?;
    let (changes, scrapes, idle) = if options.quick { (20, 5, 2) } else { (500, 100, 30) };
    // A higher priority, as in the benchmark of connects: other work interrupts it less. Optional.
    let _ = rustix::process::setpriority_process(None, -15);
    let mut report = Report::begin();
    // First: after a full pool the kernel keeps freeing its maps and cgroups for a while.
    let in_memory = changes_in_memory(&binary, changes)?;
    let mut fixture = Fixture::new(&binary, true)?;
    let mut add = |what: &str, unit: &str, limit: Option<f64>, values: Vec<f64>| {
        report.figures.push(Figure::of(what, unit, limit, values))
    };

    fixture.fill(10)?;
    let (took, spent) = fixture.with_cpu_time(changes, |fixture| fixture.changes(changes))?;
    add("a route change, 10 routes, state on disk", "ms", Some(10.0), took);
    add("the agent's processor time for it", "ms", None, vec![spent]);
    add("the disk's part of it, alone", "ms", None, fixture.sync_times(changes)?);
    add("a route change, 10 routes, state in memory", "ms", Some(10.0), in_memory);
    add(
        "processor time, idle, 10 routes",
        "% of a core",
        Some(0.1),
        vec![fixture.idle_percent(Duration::from_secs(idle))?],
    );
    add("memory, 10 routes", "MiB", Some(20.0), vec![fixture.resident_mib()]);
    let attached = fixture.attach_times(changes.min(100))?;
    add("from mkdir of a cgroup until it is attached", "ms", None, attached);
    add(
        "from the first mkdir of 1,000 cgroups until all are attached",
        "ms",
        None,
        vec![fixture.burst_time(1000)?],
    );
    fixture.fill(1000)?;
    let (took, spent) = fixture.with_cpu_time(scrapes, |fixture| fixture.scrapes(scrapes))?;
    add("a scrape, 1,000 routes", "ms", Some(20.0), took);
    add("the agent's processor time for it", "ms", None, vec![spent]);
    add("a route change, 1,000 routes", "ms", None, fixture.changes(changes)?);
    // Half a pool takes a debug build minutes: a quick run uses fewer routes.
    let full = if options.quick { 2000 } else { FULL_POOL };
    fixture.fill(full)?;
    add(
        &format!("memory, {full} routes, after import"),
        "MiB",
        Some(120.0),
        vec![fixture.resident_mib()],
    );
    add(&format!("a route change, {full} routes"), "ms", None, fixture.changes(changes / 20)?);
    add(
        &format!("processor time, idle, {full} routes"),
        "% of a core",
        None,
        vec![fixture.idle_percent(Duration::from_secs(idle))?],
    );
    fixture.agent.restart()?;
    add(
        &format!("a start with {full} routes, until READY=1"),
        "s",
        None,
        vec![fixture.agent.ready_after().as_secs_f64()],
    );
    add(
        &format!("memory, {full} routes, after a start"),
        "MiB",
        Some(120.0),
        vec![fixture.resident_mib()],
    );
    report.finish();
    Ok(report)
}
