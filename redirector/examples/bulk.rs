//! Fills the kernel's tables with a pool full of routes, and changes routes one by one, against the
//! clock: `cargo xtask bench bulk` runs it on a node with a bpf file system of its own.
//!
//!     bulk BPFFS ROUNDS
//!
//! Prints the times of all rounds as JSON.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use redirector::{
    datapath::{self, Datapath, Settings},
    plan::{Change, Plan, PlannedRoute, diff},
    pool::Pool,
    route::PortPair,
};
use redirector_bench::bulk::Times;

/// Every address of a /16.
const ROUTES: u32 = 65_536;
/// Single changes of a round.
const SINGLES: u32 = 2000;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(bpffs), Some(rounds)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: bulk BPFFS ROUNDS")
    };
    let rounds: u32 = rounds.parse().context("ROUNDS is not a number")?;
    let mut times = Times::default();
    for round in 0..rounds {
        measure(&PathBuf::from(&bpffs).join(round.to_string()), &mut times)?;
    }
    println!("{}", serde_json::to_string(&times)?);
    Ok(())
}

/// One round, with pins at `bpffs`.
pub(crate) fn measure(bpffs: &Path, times: &mut Times) -> anyhow::Result<()> {
    let pool = Pool::new("198.18.0.0/16".parse()?, None, true).map_err(|(_, error)| error)?;
    let settings = Settings { bpffs: bpffs.to_owned(), pool, debug_log: false };
    let mut datapath = Datapath::open(&settings)?;
    let (filled, processor) = carry_out(&mut datapath, &plan(1), usize::MAX)?;
    times.filled.push(micros(filled));
    times.filled_processor.push(micros(processor));
    times.replaced.push(micros(carry_out(&mut datapath, &plan(3), usize::MAX)?.0));
    times.singly.push(micros(carry_out(&mut datapath, &plan(5), 1)?.0));
    for number in 0..SINGLES {
        // Spread over the pool, so that no cache is warmer than an agent's would be.
        let index = number.wrapping_mul(2_654_435_761) % ROUTES;
        let change = [Change::Put { index, route: route(index, 7 + (number % 50) as u8) }];
        let began = Instant::now();
        datapath.apply(&change)?;
        times.one.push(micros(began.elapsed()));
    }
    let before = datapath.plan();
    drop(datapath);
    let began = Instant::now();
    let mut datapath = Datapath::open(&settings)?;
    times.adopted.push(micros(began.elapsed()));
    ensure!(
        datapath.plan() == before,
        "what was read back from the kernel is not what was written"
    );
    times.withdrawn.push(micros(carry_out(&mut datapath, &Plan::default(), usize::MAX)?.0));
    drop(datapath);
    datapath::unload(bpffs)?;
    Ok(())
}

/// How long it takes from the plan, which the agent has in memory, to the kernel having it all, by
/// the clock and on the processor; at most so many changes are handed over at once.
fn carry_out(
    datapath: &mut Datapath,
    plan: &Plan,
    at_once: usize,
) -> anyhow::Result<(Duration, Duration)> {
    let before = datapath.plan();
    let (began, processor) = (Instant::now(), processor_time());
    for changes in diff(&before, plan).chunks(at_once) {
        datapath.apply(changes)?;
    }
    let took = (began.elapsed(), processor_time() - processor);
    ensure!(datapath.plan() == *plan, "the kernel does not have the plan");
    Ok(took)
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

/// How long this thread has been on a processor.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A route for every address, each to two backends of its own; `last` makes plans that differ in
/// every route.
fn plan(last: u8) -> Plan {
    Plan { routes: (0..ROUTES).map(|index| (index, route(index, last))).collect() }
}

fn route(index: u32, last: u8) -> PlannedRoute {
    let [_, _, high, low] = index.to_be_bytes();
    PlannedRoute {
        ports: vec![PortPair { client: 443, destination: 443 }],
        backends: Some([last, last + 1].map(|last| IpAddr::from([10, high, low, last])).to_vec()),
        ..PlannedRoute::default()
    }
}
