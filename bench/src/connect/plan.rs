//! The order of the measurements, and how long each takes.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context, Result};

use super::{
    fixture::Fixture,
    report::{HookCost, Report, Scenario},
    rounds::{self, ClockedRounds, Limit, Load},
    variants::{
        BARE, BASELINE_HIT, BASELINE_MISS, DNAT, EMPTY, HASH_ENTRY, HIT, HIT_ANY, HIT_TWO, HOT,
        HOT_FULL, HOT_UNSAMPLED, MISS, PROXY, STORAGE, TCP, TCP_FULL, UDP, UDP_FULL, UDP_LIFE,
        UDP_SEND, Variant,
    },
};
use crate::{
    options::{FULL_POOL, last_core},
    worker::Operation,
};

/// How much is measured.
pub(super) struct Effort {
    rounds: usize,
    /// Longest time of a scenario, as a share of its own.
    time_factor: f64,
    /// Rounds in which the kernel clocks the programs.
    clocked_rounds: usize,
}

impl Effort {
    pub(super) const FULL: Self = Self { rounds: 3000, time_factor: 1.0, clocked_rounds: 40 };
    pub(super) const QUICK: Self = Self { rounds: 10, time_factor: 0.1, clocked_rounds: 3 };

    fn limit(&self, seconds: f64) -> Limit {
        Limit { rounds: self.rounds, time: Duration::from_secs_f64(seconds * self.time_factor) }
    }
}

/// Batches take a millisecond or two: long against the pipes, short against a scheduler's slice.
const UDP_BATCH: u32 = 3000;
const TCP_BATCH: u32 = 40;
const HOT_BATCH: u32 = 500;
/// How long the agent takes to change its sampling ratio: it counts connects by the second.
const SAMPLING_DELAY: Duration = Duration::from_secs(3);

/// Sets the fixture up and measures everything.
pub(super) fn run(
    binary: &Path,
    baseline: Option<&Path>,
    effort: &Effort,
    report: &mut Report,
) -> Result<()> {
    report.core = last_core()?;
    eprintln!("starting a node, an agent and the peers; measuring on core {}", report.core);
    let fixture =
        Fixture::new(binary, baseline, report.core).context("failed to set the benchmark up")?;
    let mut session = Session { fixture, effort, has_baseline: baseline.is_some() };
    report.scenarios.extend(session.one_route()?);
    eprintln!("clocking the hooks");
    report.hooks.extend(session.hooks_of_one_route()?);
    eprintln!("filling the pool with {FULL_POOL} routes");
    session.fixture.fill()?;
    report.scenarios.extend(session.full_pool()?);
    report.hooks.extend(session.hooks_of_a_full_pool()?);
    Ok(())
}

struct Session<'a> {
    fixture: Fixture,
    effort: &'a Effort,
    has_baseline: bool,
}

impl Session<'_> {
    fn one_route(&mut self) -> Result<Vec<Scenario>> {
        let udp = Load { operation: Operation::Udp, count: UDP_BATCH };
        let life = Load { operation: Operation::UdpLife, count: UDP_BATCH / 3 };
        let send = Load { operation: Operation::UdpSend, count: UDP_BATCH / 3 };
        let miss = self.and_baseline(&[BARE, EMPTY, MISS], &[BASELINE_MISS]);
        let sending = self.and_baseline(&[BARE, MISS], &[BASELINE_MISS]);
        let tcp = [BARE, EMPTY, STORAGE, HASH_ENTRY, MISS, HIT, DNAT, PROXY];
        let tcp = self.and_baseline(&tcp, &[BASELINE_MISS, BASELINE_HIT]);
        Ok(vec![
            self.compare(UDP, udp, &miss, 15.0)?,
            self.compare(UDP_LIFE, life, &miss, 12.0)?,
            self.compare(UDP_SEND, send, &sending, 12.0)?,
            self.compare(TCP, TCP_LOAD, &tcp, 50.0)?,
        ])
    }

    /// The variants, with those of the baseline if there is one.
    fn and_baseline(&self, variants: &[Variant], baseline: &[Variant]) -> Vec<Variant> {
        [variants, if self.has_baseline { baseline } else { &[] }].concat()
    }

    fn full_pool(&mut self) -> Result<Vec<Scenario>> {
        let udp = Load { operation: Operation::Udp, count: UDP_BATCH };
        Ok(vec![
            self.compare(UDP_FULL, udp, &[BARE, EMPTY, MISS], 10.0)?,
            self.compare(TCP_FULL, TCP_LOAD, &[BARE, EMPTY, MISS, HIT, HIT_ANY], 40.0)?,
        ])
    }

    fn compare(
        &mut self,
        name: &str,
        load: Load,
        variants: &[Variant],
        seconds: f64,
    ) -> Result<Scenario> {
        eprintln!("measuring: {name}");
        let times =
            rounds::alternate(&mut self.fixture, load, variants, self.effort.limit(seconds))?;
        Ok(rounds::scenario(name, load, variants, &times))
    }

    fn hooks_of_one_route(&mut self) -> Result<Vec<HookCost>> {
        let mut costs = Vec::new();
        let miss = self.and_baseline(&[EMPTY, STORAGE, MISS], &[BASELINE_MISS]);
        let variants = self.and_baseline(&[EMPTY, STORAGE, HIT], &[BASELINE_HIT]);
        costs.extend(self.hooks("miss", TCP_LOAD, &miss, self.clocked())?);
        costs.extend(self.hooks("hit", TCP_LOAD, &variants, self.clocked())?);
        for variant in self.and_baseline(&[HIT], &[BASELINE_HIT]) {
            rounds::load(&mut self.fixture, &variant, TCP_LOAD, SAMPLING_DELAY)?;
        }
        costs.extend(self.hooks(HOT, HOT_LOAD, &variants, self.sampled())?);
        thread::sleep(SAMPLING_DELAY);
        costs.extend(self.hooks(HOT_UNSAMPLED, HOT_LOAD, &variants, self.unsampled())?);
        Ok(costs)
    }

    fn hooks_of_a_full_pool(&mut self) -> Result<Vec<HookCost>> {
        let variants = [EMPTY, STORAGE, HIT, HIT_TWO];
        let mut costs = self.hooks(HOT_FULL, HOT_LOAD, &variants, self.sampled())?;
        costs.extend(self.hooks(
            "hit, 65,534 routes",
            TCP_LOAD,
            &[EMPTY, HIT_ANY],
            self.clocked(),
        )?);
        Ok(costs)
    }

    fn hooks(
        &mut self,
        name: &str,
        load: Load,
        variants: &[Variant],
        rounds: ClockedRounds,
    ) -> Result<Vec<HookCost>> {
        let samples = rounds::clock_hooks(&mut self.fixture, load, variants, rounds)?;
        Ok(samples.costs(name, variants))
    }

    fn clocked(&self) -> ClockedRounds {
        ClockedRounds { rounds: self.effort.clocked_rounds, background: Vec::new() }
    }

    /// These batches are short, and what the kernel does for a new socket varies by more than the
    /// hook takes: hence the additional rounds.
    fn unsampled(&self) -> ClockedRounds {
        ClockedRounds { rounds: 10 * self.effort.clocked_rounds, background: Vec::new() }
    }

    /// With successful connects in each round, so that the agent keeps sampling.
    fn sampled(&self) -> ClockedRounds {
        let hits = self.and_baseline(&[HIT], &[BASELINE_HIT]);
        let background = hits.into_iter().map(|variant| (variant, TCP_LOAD)).collect();
        ClockedRounds { background, ..self.unsampled() }
    }
}

const TCP_LOAD: Load = Load { operation: Operation::Tcp, count: TCP_BATCH };
const HOT_LOAD: Load = Load { operation: Operation::TcpProhibited, count: HOT_BATCH };
