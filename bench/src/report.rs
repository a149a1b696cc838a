//! The result: as JSON, as Markdown, and as a table for the one who waited for it.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::plan;
use super::statistics::Spread;
use testbed::packages;

/// Everything that a run of the benchmark found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When it began, UTC.
    pub date: String,
    /// Kernel release.
    pub kernel: String,
    /// Processor, and how many cores of it.
    pub machine: String,
    /// The core that everything measured ran on.
    pub core: usize,
    /// What was measured, and its peers: name and version.
    pub versions: Vec<String>,
    /// The machine's load averages of one minute, before and after: what else it did.
    pub load: [f64; 2],
    /// Wall clock, in seconds.
    pub seconds: f64,
    /// What was measured against what.
    pub scenarios: Vec<Scenario>,
    /// Cost of each hook by the kernel's clock.
    pub hooks: Vec<HookCost>,
    /// What was promised and what was found.
    pub targets: Vec<Target>,
}

/// Variants that took turns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// What one operation is.
    pub name: String,
    /// Operations whose time was taken as one.
    pub operations_per_batch: u32,
    /// Batches of each variant.
    pub rounds: usize,
    /// Time of one operation.
    pub timings: Vec<Timing>,
    /// Variants against each other, each with its neighbour in the same round.
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
    /// What it is divided by.
    pub against: String,
    /// The quotient of both times in each round.
    pub ratio: Spread,
    /// The difference of both times in each round, in nanoseconds.
    pub extra_nanoseconds: Spread,
}

/// What a hook costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HookCost {
    /// `miss` or `hit`.
    pub scenario: String,
    /// The variant.
    pub variant: String,
    /// The hook.
    pub hook: String,
    /// How often it ran for one TCP connection.
    pub runs_per_operation: f64,
    /// Nanoseconds of one run, the clock's own included.
    pub nanoseconds: Spread,
    /// The same, less what the empty program took in the same round.
    pub above_empty: Spread,
    /// The same, less what the empty program with socket storage took in the same round.
    #[serde(default)]
    pub above_storage: Spread,
}

/// What was promised and what was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// What.
    pub what: String,
    /// At most this.
    pub limit: f64,
    /// Found, by the median.
    pub found: f64,
    /// Whether it is kept.
    pub met: bool,
}

/// What was promised of a hit's hook, in nanoseconds, and in bare UDP connect()s of the machine
/// where that was planned: one took 273 ns.
const PLANNED_HOOK_NS: f64 = 60.0;
const PLANNED_HOOK_CONNECTS: f64 = 0.22;

impl Report {
    /// An empty report of this machine and moment.
    pub(super) fn begin() -> Result<Self> {
        let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown processor", |(_, name)| name);
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let date = said(&mut Command::new("date"), &["-u", "+%Y-%m-%d %H:%M UTC"]);
        let versions = vec![
            format!("redirector {} ({})", env!("CARGO_PKG_VERSION"), commit()),
            said(&mut packages::tool("nft")?, &["--version"]),
            said(&mut packages::tool("haproxy")?, &["-v"]),
        ];
        Ok(Self {
            date,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            machine: format!("{model}, {cores} cores"),
            versions,
            load: [load(), 0.0],
            ..Self::default()
        })
    }

    pub(super) fn finish(&mut self, seconds: f64) {
        self.seconds = seconds;
        self.load[1] = load();
        self.targets = self.judge();
    }

    /// The quotient of two variants in a scenario.
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
        let (bare, empty, hit) = (plan::BARE.name, plan::EMPTY.name, plan::HIT.name);
        let quotient = |scenario, variant, against| {
            self.ratio(scenario, variant, against).map(|ratio| ratio.ratio.median)
        };
        let full = |variant| {
            Some(quotient(plan::TCP_FULL, variant, bare)? / quotient(plan::TCP, hit, bare)?)
        };
        let hook = self.hook(plan::HOT, hit, "connect4").map(|cost| cost.above_storage.median);
        let connect = self.timing(plan::UDP, bare).map(|timing| timing.nanoseconds.median);
        let rows = [
            (
                "a miss: UDP connect() against empty programs",
                1.05,
                quotient(plan::UDP, plan::MISS.name, empty),
            ),
            (
                "a miss, TCP, against empty programs",
                1.05,
                quotient(plan::TCP, plan::MISS.name, empty),
            ),
            (
                "a hit's connect hook above an empty one, without socket storage, ns",
                PLANNED_HOOK_NS,
                hook,
            ),
            (
                "the same, in bare UDP connect()s, of which one took 273 ns where 60 were planned",
                PLANNED_HOOK_CONNECTS,
                hook.zip(connect).map(|(hook, connect)| hook / connect),
            ),
            (
                "a hit: TCP connect, one byte each way, close, against bare",
                1.05,
                quotient(plan::TCP, hit, bare),
            ),
            ("65,534 routes against one, the same VIP", 1.05, full(hit)),
            ("65,534 routes against one, any VIP", 1.05, full(plan::HIT_ALL.name)),
        ];
        let targets =
            rows.into_iter().filter_map(|(what, limit, found)| Some((what, limit, found?)));
        targets
            .map(|(what, limit, found)| Target {
                what: what.to_owned(),
                limit,
                found,
                met: found <= limit,
            })
            .collect()
    }

    /// For a terminal.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for scenario in &self.scenarios {
            let _ = writeln!(
                text,
                "\n{} ({} rounds of {})",
                scenario.name, scenario.rounds, scenario.operations_per_batch
            );
            let _ = writeln!(
                text,
                "  {:36} {:>12}  {:>22}  {:>22}",
                "", "median", "× bare [95 %]", "× empty [95 %]"
            );
            for timing in &scenario.timings {
                let against = |base: &str| {
                    self.ratio(&scenario.name, &timing.variant, base)
                        .map_or(String::new(), |ratio| shown(&ratio.ratio, 3))
                };
                let (bare, empty) = (against(plan::BARE.name), against(plan::EMPTY.name));
                let _ = writeln!(
                    text,
                    "  {:36} {:>9.0} ns  {bare:>22}  {empty:>22}",
                    timing.variant, timing.nanoseconds.median
                );
            }
        }
        let _ = writeln!(
            text,
            "\nhooks, by the kernel's clock\n  {:38} {:36} {:14} {:>6} {:>8}  {:>22}  {:>22}",
            "", "", "", "runs", "ns", "above empty [95 %]", "above storage [95 %]"
        );
        for cost in &self.hooks {
            let HookCost {
                scenario,
                variant,
                hook,
                runs_per_operation,
                nanoseconds,
                above_empty,
                above_storage,
            } = cost;
            let (empty, storage) = (shown(above_empty, 0), shown(above_storage, 0));
            let _ = writeln!(
                text,
                "  {scenario:38} {variant:36} {hook:14} {runs_per_operation:>6.1} {:>8.0}  \
                    {empty:>22}  {storage:>22}",
                nanoseconds.median
            );
        }
        text.push('\n');
        for target in &self.targets {
            let _ = writeln!(
                text,
                "{} {:70} at most {:>6}: {:.3}",
                if target.met { "ok  " } else { "MISS" },
                target.what,
                target.limit,
                target.found
            );
        }
        let _ = writeln!(
            text,
            "load {:.1} before, {:.1} after; {:.0} s",
            self.load[0], self.load[1], self.seconds
        );
        text
    }

    /// For the repository.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!(
            "# What a connect costs\n\nMade by `cargo xtask bench connect`; [how to read it](../README.md).\n\n![plot](connect.svg)\n\n\
             - {}, {}, kernel {}, all on core {}\n- {}\n- load average {:.1} before and {:.1} after; {:.0} s\n",
            self.date,
            self.machine,
            self.kernel,
            self.core,
            self.versions.join("; "),
            self.load[0],
            self.load[1],
            self.seconds
        );
        text.push_str("\n## Targets\n\n| target | at most | found | |\n|---|---|---|---|\n");
        for target in &self.targets {
            let _ = writeln!(
                text,
                "| {} | {} | {:.3} | {} |",
                target.what,
                target.limit,
                target.found,
                if target.met { "met" } else { "**missed**" }
            );
        }
        for scenario in &self.scenarios {
            let _ = write!(
                text,
                "\n## {}\n\n{} rounds of {} operations.\n\n| | ns | quartiles | × bare [95 %] | × \
                    empty [95 %] |\n|---|---|---|---|---|\n",
                scenario.name, scenario.rounds, scenario.operations_per_batch
            );
            for timing in &scenario.timings {
                let time = &timing.nanoseconds;
                let against = |base: &str| {
                    self.ratio(&scenario.name, &timing.variant, base)
                        .map_or(String::new(), |ratio| shown(&ratio.ratio, 3))
                };
                let (bare, empty) = (against(plan::BARE.name), against(plan::EMPTY.name));
                let _ = writeln!(
                    text,
                    "| {} | {:.0} | {:.0} to {:.0} | {bare} | {empty} |",
                    timing.variant, time.median, time.quartile_1, time.quartile_3
                );
            }
        }
        text.push_str(
            "\n## Hooks, by the kernel's clock\n\nFor one TCP connection; the clock \
            itself is in the times, and not in the differences.\n\n| | variant | hook | runs | ns \
            each | above empty, ns [95 %] | above storage, ns [95 %] \
            |\n|---|---|---|---|---|---|---|\n",
        );
        for cost in &self.hooks {
            let HookCost {
                scenario,
                variant,
                hook,
                runs_per_operation,
                nanoseconds,
                above_empty,
                above_storage,
            } = cost;
            let _ = writeln!(
                text,
                "| {scenario} | {variant} | {hook} | {runs_per_operation:.1} | {:.0} | {} | {} |",
                nanoseconds.median,
                shown(above_empty, 0),
                shown(above_storage, 0)
            );
        }
        text
    }
}

fn shown(spread: &Spread, digits: usize) -> String {
    format!("{:.digits$} [{:.digits$}, {:.digits$}]", spread.median, spread.low, spread.high)
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

fn commit() -> String {
    let mut git = Command::new("git");
    git.current_dir(testbed::workspace::root());
    said(&mut git, &["describe", "--always", "--dirty"])
}

/// The first line that a program says; a word instead when it says nothing.
fn said(command: &mut Command, arguments: &[&str]) -> String {
    let output = command
        .args(arguments)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    output
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}
