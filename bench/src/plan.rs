//! What is measured against what, and for how long.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::measure::{self, Clocked, Limit};
use super::report::Report;
use super::scene::{FULL, Scene};
use super::worker::Operation;

/// Whose client does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Bare,
    Empty,
    Storage,
    Ours,
    Two,
    Dnat,
    Proxy,
}

/// One side of a comparison.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) who: Who,
    /// To the VIP, the translated address or the proxy; else to the server itself.
    pub(super) by_way: bool,
    /// Over so many addresses, at random.
    pub(super) spread: u32,
}

const fn direct(name: &'static str, who: Who) -> Variant {
    Variant { name, who, by_way: false, spread: 1 }
}

const fn by_way(name: &'static str, who: Who) -> Variant {
    Variant { name, who, by_way: true, spread: 1 }
}

pub(super) const BARE: Variant = direct("bare", Who::Bare);
pub(super) const EMPTY: Variant = direct("empty programs", Who::Empty);
pub(super) const STORAGE: Variant = direct("empty + socket storage", Who::Storage);
pub(super) const MISS: Variant = direct("redirector, miss", Who::Ours);
pub(super) const HIT: Variant = by_way("redirector, hit", Who::Ours);
pub(super) const HIT_TWO: Variant = by_way("redirector, hit, one of two backends", Who::Two);
pub(super) const HIT_ALL: Variant = Variant {
    name: "redirector, hit, any of 65,534 VIPs",
    who: Who::Ours,
    by_way: true,
    spread: FULL,
};
pub(super) const DNAT: Variant = by_way("nftables DNAT", Who::Dnat);
pub(super) const PROXY: Variant = by_way("HAProxy", Who::Proxy);

/// The scenarios' names, by which the targets find them.
pub(super) const UDP: &str = "UDP connect()";
pub(super) const UDP_LIFE: &str = "UDP socket(), connect(), close()";
pub(super) const UDP_SEND: &str = "UDP sendto(), one byte, not DNS";
pub(super) const TCP: &str = "TCP connect, one byte each way, close";
pub(super) const UDP_FULL: &str = "UDP connect(), 65,534 routes";
pub(super) const TCP_FULL: &str = "TCP connect, one byte each way, close, 65,534 routes";

/// The hooks of connects that hit, one after the other, and send nothing: the programs and the
/// tables are in the caches. Beside them so many connects succeed that the agent has a part of them
/// told only.
pub(super) const HOT: &str = "hit, nothing sent";
/// The same while it is quiet, when each connect's caller is asked for.
pub(super) const HOT_ASKED: &str = "hit, nothing sent, each caller asked";

/// The same as the first with a pool full of routes, and beside it a route of two backends, of
/// which one is chosen.
pub(super) const HOT_FULL: &str = "hit, nothing sent, 65,534 routes";

/// How much is measured.
pub(super) struct Effort {
    rounds: usize,
    /// Longest time of one scenario, as a share of its own.
    patience: f64,
    /// Rounds with the kernel's clock on programs.
    clocked: usize,
}

impl Effort {
    pub(super) const FULL: Self = Self { rounds: 3000, patience: 1.0, clocked: 40 };
    pub(super) const QUICK: Self = Self { rounds: 10, patience: 0.1, clocked: 3 };

    fn limit(&self, seconds: f64) -> Limit {
        Limit { rounds: self.rounds, time: Duration::from_secs_f64(seconds * self.patience) }
    }
}

/// Batches of a millisecond or two: long against the pipes, short against a scheduler's turn.
const UDP_BATCH: u32 = 3000;
const TCP_BATCH: u32 = 40;
const HOT_BATCH: u32 = 500;
/// Until the agent has seen that many connects succeed, or that few do: it counts by the second.
const PRESSURE: Duration = Duration::from_secs(3);

/// Stands the scene up and measures everything.
pub(super) fn carry_out(binary: &Path, effort: &Effort, report: &mut Report) -> Result<()> {
    let core = last_core()?;
    eprintln!("standing up a node, an agent and the peers; what is measured runs on core {core}");
    let mut scene = Scene::set(binary, core).context("failed to stand the benchmark up")?;
    report.core = core;
    let mut measured =
        |scene: &mut Scene, name, operation, count, variants: &[Variant], seconds| -> Result<()> {
            eprintln!("measuring: {name}");
            report.scenarios.push(measure::alternate(
                scene,
                name,
                operation,
                count,
                variants,
                effort.limit(seconds),
            )?);
            Ok(())
        };
    measured(&mut scene, UDP, Operation::Udp, UDP_BATCH, &[BARE, EMPTY, MISS], 15.0)?;
    measured(&mut scene, UDP_LIFE, Operation::UdpLife, UDP_BATCH / 3, &[BARE, EMPTY, MISS], 12.0)?;
    measured(&mut scene, UDP_SEND, Operation::UdpSend, UDP_BATCH / 3, &[BARE, MISS], 12.0)?;
    measured(
        &mut scene,
        TCP,
        Operation::Tcp,
        TCP_BATCH,
        &[BARE, EMPTY, STORAGE, MISS, HIT, DNAT, PROXY],
        50.0,
    )?;
    eprintln!("clocking the hooks");
    let clocked = Clocked { rounds: effort.clocked, beside: None };
    for (name, variants) in [("miss", [EMPTY, STORAGE, MISS]), ("hit", [EMPTY, STORAGE, HIT])] {
        report.hooks.extend(measure::hooks(
            &mut scene,
            name,
            Operation::Tcp,
            TCP_BATCH,
            &variants,
            clocked,
        )?);
    }
    let variants = [EMPTY, STORAGE, HIT];
    measure::load(&mut scene, &HIT, Operation::Tcp, TCP_BATCH, PRESSURE)?;
    // These batches are short, and what the kernel does for a new socket varies by more than the
    // hook takes.
    let quiet = Clocked { rounds: 10 * effort.clocked, ..clocked };
    let pressed = Clocked { beside: Some((HIT, Operation::Tcp, TCP_BATCH)), ..quiet };
    report.hooks.extend(measure::hooks(
        &mut scene,
        HOT,
        Operation::TcpProhibited,
        HOT_BATCH,
        &variants,
        pressed,
    )?);
    thread::sleep(PRESSURE);
    report.hooks.extend(measure::hooks(
        &mut scene,
        HOT_ASKED,
        Operation::TcpProhibited,
        HOT_BATCH,
        &variants,
        quiet,
    )?);
    eprintln!("filling the pool with {FULL} routes");
    scene.fill()?;
    let mut measured =
        |scene: &mut Scene, name, operation, count, variants: &[Variant], seconds| -> Result<()> {
            eprintln!("measuring: {name}");
            report.scenarios.push(measure::alternate(
                scene,
                name,
                operation,
                count,
                variants,
                effort.limit(seconds),
            )?);
            Ok(())
        };
    measured(&mut scene, UDP_FULL, Operation::Udp, UDP_BATCH, &[BARE, EMPTY, MISS], 10.0)?;
    measured(
        &mut scene,
        TCP_FULL,
        Operation::Tcp,
        TCP_BATCH,
        &[BARE, EMPTY, MISS, HIT, HIT_ALL],
        40.0,
    )?;
    report.hooks.extend(measure::hooks(
        &mut scene,
        HOT_FULL,
        Operation::TcpProhibited,
        HOT_BATCH,
        &[EMPTY, STORAGE, HIT, HIT_TWO],
        pressed,
    )?);
    let full = measure::hooks(
        &mut scene,
        "hit, 65,534 routes",
        Operation::Tcp,
        TCP_BATCH,
        &[EMPTY, HIT_ALL],
        clocked,
    )?;
    report.hooks.extend(full);
    Ok(())
}

/// The last core that this process may use: the first one often serves the devices.
fn last_core() -> Result<usize> {
    let allowed =
        rustix::thread::sched_getaffinity(None).context("failed to read the allowed cores")?;
    (0..rustix::thread::CpuSet::MAX_CPU)
        .rev()
        .find(|&core| allowed.is_set(core))
        .context("no core is allowed")
}
