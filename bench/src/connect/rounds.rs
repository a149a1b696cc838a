//! One batch of each variant in every round, each round in another order.

use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    bpf,
    client::Client,
    fixture::{FIRST_VIP, Fixture},
    report::{HookCost, Ratio, Scenario, Timing},
    variants::{ClientKind, Variant},
};
use crate::{
    peers::cgroup_programs::HOOKS,
    rounds::{self, Turns, WARM_UP},
    statistics::Spread,
    worker::{Batch, Operation},
};

/// A scenario ends at the limit that is reached first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) rounds: usize,
    pub(super) time: Duration,
}

/// What a batch consists of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) operation: Operation,
    pub(super) count: u32,
}

/// How often the hooks are timed.
#[derive(Clone, Debug)]
pub(super) struct ClockedRounds {
    pub(super) rounds: usize,
    /// Batches that run in each round and are not timed.
    pub(super) background: Vec<(Variant, Load)>,
}

/// Repeats batches of one variant for `time`.
pub(super) fn load(
    fixture: &mut Fixture,
    variant: &Variant,
    load: Load,
    time: Duration,
) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        run_batch(fixture, variant, load)?;
    }
    Ok(())
}

/// Nanoseconds of one operation, by variant and round.
pub(super) fn alternate(
    fixture: &mut Fixture,
    load: Load,
    variants: &[Variant],
    limit: Limit,
) -> Result<Vec<Vec<f64>>> {
    rounds::alternate(variants.len(), (limit.rounds, limit.time), |which| {
        run_batch(fixture, &variants[which], load)
    })
    .map(Turns::into_times)
}

fn run_batch(fixture: &mut Fixture, variant: &Variant, load: Load) -> Result<f64> {
    let client = fixture.client(variant.client)?;
    let target = match variant {
        Variant { spread: 2.., .. } => SocketAddrV4::new(FIRST_VIP, client.indirect.port()),
        Variant { indirect: true, .. } => client.indirect,
        _ => client.server,
    };
    let Load { operation, count } = load;
    client.worker.run(Batch { operation, count, target, spread: variant.spread })
}

/// The timings of a scenario, and the ratios of each variant to those it is compared with.
pub(super) fn scenario(
    name: &str,
    load: Load,
    variants: &[Variant],
    times: &[Vec<f64>],
) -> Scenario {
    let timings = variants.iter().zip(times).map(|(variant, times)| Timing {
        variant: variant.name.to_owned(),
        nanoseconds: Spread::of(times.clone()),
    });
    let mut ratios = Vec::new();
    for against in [ClientKind::Bare, ClientKind::Empty, ClientKind::Baseline] {
        for (base, base_variant) in variants.iter().enumerate() {
            if base_variant.client != against {
                continue;
            }
            for (which, variant) in variants.iter().enumerate() {
                if which != base && base_variant.is_base_of(variant) {
                    let pairs = || times[which].iter().zip(&times[base]);
                    ratios.push(Ratio {
                        variant: variant.name.to_owned(),
                        against: base_variant.name.to_owned(),
                        ratio: Spread::of(pairs().map(|(mine, theirs)| mine / theirs).collect()),
                        extra_nanoseconds: Spread::of(
                            pairs().map(|(mine, theirs)| mine - theirs).collect(),
                        ),
                    });
                }
            }
        }
    }
    Scenario {
        name: name.to_owned(),
        operations_per_batch: load.count,
        rounds: times.first().map_or(0, Vec::len),
        timings: timings.collect(),
        ratios,
    }
}

/// What the kernel's clock measured of one variant at one hook.
#[derive(Clone, Default)]
struct HookSamples {
    /// Nanoseconds of one run, by round.
    nanoseconds: Vec<f64>,
    runs_per_operation: f64,
}

/// What the kernel's clock measured, by variant and hook.
pub(super) struct Samples(Vec<[HookSamples; HOOKS.len()]>);

/// Times every hook that the batches of each variant pass.
pub(super) fn clock_hooks(
    fixture: &mut Fixture,
    load: Load,
    variants: &[Variant],
    rounds: ClockedRounds,
) -> Result<Samples> {
    let _clock = bpf::enable_stats()?;
    let mut samples = Samples(variants.iter().map(|_| Default::default()).collect());
    for round in 0..rounds.rounds + WARM_UP {
        for (variant, load) in &rounds.background {
            run_batch(fixture, variant, *load)?;
        }
        for (variant, hooks) in variants.iter().zip(&mut samples.0) {
            let before = all_runs(fixture.client(variant.client)?)?;
            run_batch(fixture, variant, load)?;
            let after = all_runs(fixture.client(variant.client)?)?;
            for (hook, (before, after)) in hooks.iter_mut().zip(before.iter().zip(&after)) {
                let runs = (after.count - before.count) as f64;
                if runs > 0.0 && round >= WARM_UP {
                    let nanoseconds = (after.nanoseconds - before.nanoseconds) as f64;
                    hook.nanoseconds.push(nanoseconds / runs);
                    hook.runs_per_operation = runs / f64::from(load.count);
                }
            }
        }
    }
    Ok(samples)
}

impl Samples {
    /// The cost of each hook that ran, with the differences to the programs that do nothing.
    pub(super) fn costs(&self, scenario: &str, variants: &[Variant]) -> Vec<HookCost> {
        let position = |kind| variants.iter().position(|variant| variant.client == kind);
        let (empty, storage) = (position(ClientKind::Empty), position(ClientKind::Storage));
        let mut costs = Vec::new();
        for (variant, hooks) in variants.iter().zip(&self.0) {
            for (number, hook) in hooks.iter().enumerate() {
                if hook.nanoseconds.is_empty() {
                    continue;
                }
                let above = |base: Option<usize>| {
                    let base = base.map_or(&[][..], |base| &self.0[base][number].nanoseconds);
                    let pairs = hook.nanoseconds.iter().zip(base);
                    Spread::of(pairs.map(|(mine, theirs)| mine - theirs).collect())
                };
                costs.push(HookCost {
                    scenario: scenario.to_owned(),
                    variant: variant.name.to_owned(),
                    hook: HOOKS[number].name.to_owned(),
                    runs_per_operation: hook.runs_per_operation,
                    nanoseconds: Spread::of(hook.nanoseconds.clone()),
                    above_empty: above(empty),
                    above_storage: above(storage),
                });
            }
        }
        costs
    }
}

fn all_runs(client: &Client) -> Result<Vec<bpf::Runs>> {
    HOOKS.iter().map(|hook| Ok(bpf::runs(&client.cgroup, *hook)?.unwrap_or_default())).collect()
}
