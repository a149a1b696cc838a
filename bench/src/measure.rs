//! Taking turns: one batch of each variant in every round, each round in another order.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::bpf;
use super::plan::{Variant, Who};
use super::report::{HookCost, Ratio, Scenario, Timing};
use super::scene::{Client, FIRST_VIP, Scene};
use super::statistics::Spread;
use super::worker::{Batch, Operation};

/// Rounds whose times are thrown away: caches, predictors and the clock of the core settle.
const WARM_UP: usize = 3;

/// How long a scenario goes on: the first of both to be reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) rounds: usize,
    pub(super) time: Duration,
}

/// How often the hooks are clocked, and beside what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocked {
    pub(super) rounds: usize,
    /// What else is done in each round, unclocked.
    pub(super) beside: Option<(Variant, Operation, u32)>,
}

/// Does the same again and again for so long.
pub(super) fn load(
    scene: &mut Scene,
    variant: &Variant,
    operation: Operation,
    count: u32,
    time: Duration,
) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        once(scene, variant, operation, count)?;
    }
    Ok(())
}

/// Measures `variants` against each other.
pub(super) fn alternate(
    scene: &mut Scene,
    name: &str,
    operation: Operation,
    count: u32,
    variants: &[Variant],
    limit: Limit,
) -> Result<Scenario> {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); variants.len()];
    let began = Instant::now();
    for round in 0..limit.rounds + WARM_UP {
        if round > 2 * WARM_UP && began.elapsed() > limit.time {
            break;
        }
        for position in 0..variants.len() {
            // Rotated, and every other round backwards: no variant always follows the same one.
            let turn = if round % 2 == 0 { position } else { variants.len() - 1 - position };
            let which = (turn + round / 2) % variants.len();
            let nanoseconds = once(scene, &variants[which], operation, count)?;
            if round >= WARM_UP {
                times[which].push(nanoseconds);
            }
        }
    }
    Ok(scenario(name, count, variants, &times))
}

fn once(scene: &mut Scene, variant: &Variant, operation: Operation, count: u32) -> Result<f64> {
    let client = client(scene, variant.who);
    let target = match variant {
        Variant { spread: 2.., .. } => SocketAddrV4::new(FIRST_VIP, client.by_way.port()),
        Variant { by_way: true, .. } => client.by_way,
        _ => client.server,
    };
    client.worker.run(Batch { operation, count, target, spread: variant.spread })
}

fn client(scene: &mut Scene, who: Who) -> &mut Client {
    match who {
        Who::Bare => &mut scene.bare,
        Who::Empty => &mut scene.empty,
        Who::Storage => &mut scene.storage,
        Who::Ours => &mut scene.ours,
        Who::Two => &mut scene.two,
        Who::Dnat => &mut scene.dnat,
        Who::Proxy => &mut scene.proxy,
    }
}

fn scenario(name: &str, count: u32, variants: &[Variant], times: &[Vec<f64>]) -> Scenario {
    let timings = variants.iter().zip(times);
    let timings = timings.map(|(variant, times)| Timing {
        variant: variant.name.to_owned(),
        nanoseconds: Spread::of(times.clone()),
    });
    let mut ratios = Vec::new();
    for against in [Who::Bare, Who::Empty] {
        let Some(base) = variants.iter().position(|variant| variant.who == against) else {
            continue;
        };
        for (which, variant) in variants.iter().enumerate().filter(|(which, _)| *which != base) {
            let pairs = || times[which].iter().zip(&times[base]);
            ratios.push(Ratio {
                variant: variant.name.to_owned(),
                against: variants[base].name.to_owned(),
                ratio: Spread::of(pairs().map(|(mine, theirs)| mine / theirs).collect()),
                extra_nanoseconds: Spread::of(
                    pairs().map(|(mine, theirs)| mine - theirs).collect(),
                ),
            });
        }
    }
    let rounds = times.first().map_or(0, Vec::len);
    Scenario {
        name: name.to_owned(),
        operations_per_batch: count,
        rounds,
        timings: timings.collect(),
        ratios,
    }
}

/// What each hook costs by the kernel's own clock, per run and per connection.
pub(super) fn hooks(
    scene: &mut Scene,
    name: &str,
    operation: Operation,
    count: u32,
    variants: &[Variant],
    effort: Clocked,
) -> Result<Vec<HookCost>> {
    let _clocked = bpf::enable_stats()?;
    let mut costs = Vec::new();
    let mut samples = vec![vec![Vec::new(); bpf::HOOKS.len()]; variants.len()];
    let mut runs_each = vec![vec![0.0; bpf::HOOKS.len()]; variants.len()];
    for round in 0..effort.rounds + WARM_UP {
        if let Some((load, operation, count)) = &effort.beside {
            once(scene, load, *operation, *count)?;
        }
        for (which, variant) in variants.iter().enumerate() {
            let before = all_runs(client(scene, variant.who))?;
            once(scene, variant, operation, count)?;
            let after = all_runs(client(scene, variant.who))?;
            for (hook, (before, after)) in before.iter().zip(&after).enumerate() {
                let (runs, nanoseconds) =
                    (after.count - before.count, after.nanoseconds - before.nanoseconds);
                if runs > 0 && round >= WARM_UP {
                    samples[which][hook].push(nanoseconds as f64 / runs as f64);
                    runs_each[which][hook] = runs as f64 / f64::from(count);
                }
            }
        }
    }
    let position = |who| variants.iter().position(|variant| variant.who == who);
    let (empty, storage) = (position(Who::Empty), position(Who::Storage));
    for (which, variant) in variants.iter().enumerate() {
        for (hook, values) in
            samples[which].iter().enumerate().filter(|(_, values)| !values.is_empty())
        {
            let above = |base: Option<usize>| {
                let base = base.map_or(&[][..], |base| &samples[base][hook]);
                Spread::of(values.iter().zip(base).map(|(mine, theirs)| mine - theirs).collect())
            };
            costs.push(HookCost {
                scenario: name.to_owned(),
                variant: variant.name.to_owned(),
                hook: bpf::HOOKS[hook].name.to_owned(),
                runs_per_operation: runs_each[which][hook],
                nanoseconds: Spread::of(values.clone()),
                above_empty: above(empty),
                above_storage: above(storage),
            });
        }
    }
    Ok(costs)
}

fn all_runs(client: &Client) -> Result<Vec<bpf::Runs>> {
    bpf::HOOKS
        .iter()
        .map(|hook| Ok(bpf::runs(&client.cgroup, *hook)?.unwrap_or_default()))
        .collect()
}
