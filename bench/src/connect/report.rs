//! The result of a run, and its targets.

use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use testbed::{packages, workspace};

use super::variants::{BARE, EMPTY, HIT, HIT_ANY, HOT, MISS, TCP, TCP_FULL, UDP, Variant};
use crate::{host, statistics::Spread};

/// The results of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When it began, UTC.
    pub date: String,
    /// Kernel release.
    pub kernel: String,
    /// Processor, and how many cores of it.
    pub machine: String,
    /// The core of the measured processes.
    pub core: usize,
    /// Name and version of the redirector and its peers.
    pub versions: Vec<String>,
    /// Load averages of one minute, before and after.
    pub load: [f64; 2],
    /// Wall clock, in seconds.
    pub seconds: f64,
    /// The binary of the baseline, if the run compares with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// The comparisons.
    pub scenarios: Vec<Scenario>,
    /// The cost of each hook by the kernel's clock.
    pub hooks: Vec<HookCost>,
    /// The targets and the results.
    pub targets: Vec<Target>,
}

/// Variants that took turns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// The operation.
    pub name: String,
    /// Operations in a batch.
    pub operations_per_batch: u32,
    /// The number of batches of each variant.
    pub rounds: usize,
    /// Time of one operation.
    pub timings: Vec<Timing>,
    /// Ratios of the variants, each within the same round.
    pub ratios: Vec<Ratio>,
}

/// Time of one operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The variant.
    pub variant: String,
    /// Nanoseconds.
    pub nanoseconds: Spread,
}

/// One variant against another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The variant.
    pub variant: String,
    /// The variant that it is divided by.
    pub against: String,
    /// The ratio of both times in each round.
    pub ratio: Spread,
    /// The difference of both times in each round, in nanoseconds.
    pub extra_nanoseconds: Spread,
}

/// The cost of a hook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HookCost {
    /// `miss` or `hit`.
    pub scenario: String,
    /// The variant.
    pub variant: String,
    /// The hook.
    pub hook: String,
    /// Runs in one operation.
    pub runs_per_operation: f64,
    /// Nanoseconds of one run, including the clock's own.
    pub nanoseconds: Spread,
    /// The difference to the empty program in the same round.
    pub above_empty: Spread,
    /// The difference to the empty program with socket storage in the same round.
    #[serde(default)]
    pub above_storage: Spread,
}

/// A target and its result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The figure.
    pub what: String,
    /// The largest allowed value.
    pub limit: f64,
    /// The median.
    pub found: f64,
    /// Whether it is met.
    pub met: bool,
}

/// The target of a hit's hook in nanoseconds, and the same in bare UDP connect()s: on the machine
/// of the plan one took 273 ns.
const PLANNED_HOOK_NS: f64 = 60.0;
const PLANNED_HOOK_CONNECTS: f64 = 0.22;

impl Report {
    /// An empty report of this machine and moment.
    pub(super) fn begin() -> Result<Self> {
        let versions = vec![
            format!("redirector {} ({})", env!("CARGO_PKG_VERSION"), commit()),
            first_line(&mut packages::tool("nft")?, &["--version"]),
            first_line(&mut packages::tool("haproxy")?, &["-v"]),
        ];
        Ok(Self {
            date: host::now(),
            kernel: host::kernel(),
            machine: host::processor(),
            versions,
            load: [host::load(), 0.0],
            ..Self::default()
        })
    }

    pub(super) fn finish(&mut self, seconds: f64) {
        self.seconds = seconds;
        self.load[1] = host::load();
        self.targets = self.judge();
    }

    /// The ratio of two variants in a scenario.
    pub(super) fn ratio(&self, scenario: &str, variant: &str, against: &str) -> Option<&Ratio> {
        self.scenario(scenario)?
            .ratios
            .iter()
            .find(|ratio| ratio.variant == variant && ratio.against == against)
    }

    fn scenario(&self, name: &str) -> Option<&Scenario> {
        self.scenarios.iter().find(|scenario| scenario.name == name)
    }

    fn timing(&self, scenario: &str, variant: &str) -> Option<&Timing> {
        self.scenario(scenario)?.timings.iter().find(|timing| timing.variant == variant)
    }

    fn hook(&self, scenario: &str, variant: &str, hook: &str) -> Option<&HookCost> {
        self.hooks
            .iter()
            .find(|cost| cost.scenario == scenario && cost.variant == variant && cost.hook == hook)
    }

    fn judge(&self) -> Vec<Target> {
        let quotient = |scenario, variant: Variant, against: Variant| {
            Some(self.ratio(scenario, variant.name, against.name)?.ratio.median)
        };
        let full_pool =
            |variant| Some(quotient(TCP_FULL, variant, BARE)? / quotient(TCP, HIT, BARE)?);
        let hook = self.hook(HOT, HIT.name, "connect4").map(|cost| cost.above_storage.median);
        let connect = self.timing(UDP, BARE.name).map(|timing| timing.nanoseconds.median);
        let rows = [
            ("a miss: UDP connect() against empty programs", 1.01, quotient(UDP, MISS, EMPTY)),
            ("a miss, TCP, against empty programs", 1.01, quotient(TCP, MISS, EMPTY)),
            (
                "a hit's connect hook above an empty one, without socket storage, ns",
                PLANNED_HOOK_NS,
                hook,
            ),
            (
                "the same, in bare UDP connect()s (planned: 60 ns, where one takes 273 ns)",
                PLANNED_HOOK_CONNECTS,
                hook.zip(connect).map(|(hook, connect)| hook / connect),
            ),
            (
                "a hit: TCP connect, one byte each way, close, against bare",
                1.04,
                quotient(TCP, HIT, BARE),
            ),
            ("any of 65,534 VIPs: the same, against bare", 1.08, quotient(TCP_FULL, HIT_ANY, BARE)),
            ("65,534 routes against one, the same VIP", 1.05, full_pool(HIT)),
            ("65,534 routes against one, any VIP", 1.05, full_pool(HIT_ANY)),
        ];
        let found = rows.into_iter().filter_map(|(what, limit, found)| Some((what, limit, found?)));
        found
            .map(|(what, limit, found)| Target {
                what: what.to_owned(),
                limit,
                found,
                met: found <= limit,
            })
            .collect()
    }
}

fn commit() -> String {
    let mut git = Command::new("git");
    git.current_dir(workspace::root());
    first_line(&mut git, &["describe", "--always", "--dirty"])
}

/// The first line of a program's output; `unknown` when there is none.
fn first_line(command: &mut Command, arguments: &[&str]) -> String {
    let output = command.args(arguments).output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    text.lines().next().unwrap_or("unknown").to_owned()
}
