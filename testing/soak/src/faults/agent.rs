//! Faults of the agent.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use testbed::Agent;

use crate::fault::Fault;
use crate::field::{Field, LIMIT, lock};

/// Crashes of a crash loop, and how long the agent lives each time.
const CRASHES: (u32, Duration) = (3, Duration::from_millis(700));

/// Causes a fault of the agent, waits and undoes it; returns whether the next agent is ready.
/// `note_end` is called before an agent ends that had begun since.
pub(super) fn apply(
    field: &Field,
    fault: Fault,
    next: Option<Instant>,
    wait: &dyn Fn(),
    note_end: &dyn Fn(),
) -> Result<bool> {
    let mut agent = lock(&field.agent);
    match fault {
        Fault::AgentStopped => {
            agent.signal(Signal::STOP)?;
            wait();
            agent.signal(Signal::CONT)?;
            field.rig.node.cli(&field.binary, &["route", "list"])?;
            return Ok(true);
        }
        Fault::AgentUpgraded => {
            let next = agent.beside(&["--take-over"])?;
            let status = agent.wait_ended()?;
            ensure!(status.success(), "the replaced agent ended with {status}");
            *agent = next;
            return Ok(true);
        }
        Fault::AgentCrashLoop => {
            for _ in 0..CRASHES.0 {
                agent.relaunch()?;
                thread::sleep(CRASHES.1);
                note_end();
                agent.sigkill()?;
            }
        }
        Fault::AgentWithoutMemory => {
            limit_memory(&agent)?;
            wait();
            // It ends or it continues; either way the next one has the memory back.
        }
        _ => {
            agent.sigkill()?;
            wait();
        }
    }
    agent.relaunch()?;
    await_ready(&mut agent, next)
}

/// Waits for READY=1, or until the next fault of the agent is due.
fn await_ready(agent: &mut Agent, next: Option<Instant>) -> Result<bool> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if agent.notifications()?.iter().any(|state| state == "READY=1") {
            return Ok(true);
        }
        if let Some(status) = agent.ended()? {
            bail!("the agent ended: {status}\n{}", agent.log_tail());
        }
        if next.is_some_and(|next| Instant::now() >= next) {
            return Ok(false);
        }
        ensure!(Instant::now() < deadline, "not ready after {LIMIT:?}\n{}", agent.log_tail());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Lets the agent have no more address space than it has.
fn limit_memory(agent: &Agent) -> Result<()> {
    let pid = i32::try_from(agent.pid()).context("a pid out of range")?;
    let used = procfs::process::Process::new(pid)?.stat()?.vsize;
    let limit = Rlimit { current: Some(used), maximum: Some(used) };
    prlimit(Pid::from_raw(pid), Resource::As, limit)
        .context("failed to limit the agent's memory")?;
    Ok(())
}
