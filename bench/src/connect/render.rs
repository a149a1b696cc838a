//! A report as a table for a terminal, and as Markdown for the repository.

use std::fmt::Write as _;

use super::{
    report::{HookCost, Ratio, Report, Scenario, Timing},
    variants::{BARE, BASELINE_HIT, BASELINE_MISS, EMPTY, Variant},
};
use crate::statistics::Spread;

/// For a terminal.
pub(super) fn table(report: &Report) -> String {
    let mut text = String::new();
    for scenario in &report.scenarios {
        let Scenario { name, rounds, operations_per_batch, .. } = scenario;
        let _ = writeln!(text, "\n{name} ({rounds} rounds of {operations_per_batch})");
        let _ = writeln!(
            text,
            "  {:36} {:>12}  {:>22}  {:>22}",
            "", "median", "× bare [95 %]", "× empty [95 %]"
        );
        for timing in &scenario.timings {
            let (bare, empty) = ratios(report, scenario, timing);
            let Timing { variant, nanoseconds } = timing;
            let _ = writeln!(
                text,
                "  {variant:36} {:>9.0} ns  {bare:>22}  {empty:>22}",
                nanoseconds.median
            );
        }
    }
    if let Some(baseline) = &report.baseline {
        let _ = writeln!(text, "\nagainst the baseline {baseline}");
        for (scenario, ratio) in baseline_ratios(report) {
            let (factor, extra) =
                (interval(&ratio.ratio, 3), interval(&ratio.extra_nanoseconds, 0));
            let _ = writeln!(
                text,
                "  {scenario:38} {:18} {factor:>22} × {extra:>22} ns",
                ratio.variant
            );
        }
    }
    let _ = writeln!(
        text,
        "\nhooks, by the kernel's clock\n  {:38} {:36} {:14} {:>6} {:>8}  {:>22}  {:>22}",
        "", "", "", "runs", "ns", "above empty [95 %]", "above storage [95 %]"
    );
    for cost in &report.hooks {
        let HookCost { scenario, variant, hook, runs_per_operation: runs, .. } = cost;
        let (empty, storage) = (interval(&cost.above_empty, 0), interval(&cost.above_storage, 0));
        let _ = writeln!(
            text,
            "  {scenario:38} {variant:36} {hook:14} {runs:>6.1} {:>8.0}  {empty:>22}  \
             {storage:>22}",
            cost.nanoseconds.median
        );
    }
    text.push('\n');
    for target in &report.targets {
        let verdict = if target.met { "ok  " } else { "MISS" };
        let _ = writeln!(
            text,
            "{verdict} {:70} at most {:>6}: {:.3}",
            target.what, target.limit, target.found
        );
    }
    let [before, after] = report.load;
    let _ = writeln!(text, "load {before:.1} before, {after:.1} after; {:.0} s", report.seconds);
    text
}

/// For the repository.
pub(super) fn markdown(report: &Report) -> String {
    let mut text = head(report);
    text.push_str("\n## Targets\n\n| target | at most | found | |\n|---|---|---|---|\n");
    for target in &report.targets {
        let _ = writeln!(
            text,
            "| {} | {} | {:.3} | {} |",
            target.what,
            target.limit,
            target.found,
            if target.met { "met" } else { "**missed**" }
        );
    }
    for scenario in &report.scenarios {
        let Scenario { name, rounds, operations_per_batch, .. } = scenario;
        let _ = write!(
            text,
            "\n## {name}\n\n{rounds} rounds of {operations_per_batch} operations.\n\n\
             | | ns | quartiles | × bare [95 %] | × empty [95 %] |\n|---|---|---|---|---|\n"
        );
        for timing in &scenario.timings {
            let (bare, empty) = ratios(report, scenario, timing);
            let time = &timing.nanoseconds;
            let _ = writeln!(
                text,
                "| {} | {:.0} | {:.0} to {:.0} | {bare} | {empty} |",
                timing.variant, time.median, time.quartile_1, time.quartile_3
            );
        }
    }
    if let Some(baseline) = &report.baseline {
        let _ = write!(
            text,
            "\n## Against the baseline\n\n`{baseline}`, in turns with this build.\n\n\
             | | variant | × baseline [95 %] | difference, ns [95 %] |\n|---|---|---|---|\n"
        );
        for (scenario, ratio) in baseline_ratios(report) {
            let (factor, extra) =
                (interval(&ratio.ratio, 3), interval(&ratio.extra_nanoseconds, 0));
            let _ = writeln!(text, "| {scenario} | {} | {factor} | {extra} |", ratio.variant);
        }
    }
    hooks(&mut text, report);
    text
}

/// The ratios to the variants of the baseline, each with the name of its scenario.
fn baseline_ratios(report: &Report) -> impl Iterator<Item = (&str, &Ratio)> {
    let names = [BASELINE_MISS.name, BASELINE_HIT.name];
    report.scenarios.iter().flat_map(move |scenario| {
        let ratios = scenario.ratios.iter();
        ratios
            .filter(move |ratio| names.contains(&ratio.against.as_str()))
            .map(|ratio| (scenario.name.as_str(), ratio))
    })
}

fn head(report: &Report) -> String {
    let Report { date, machine, kernel, core, load: [before, after], seconds, .. } = report;
    format!(
        "# What a connect costs\n\nMade by `cargo xtask bench connect`; \
         [how to read it](../README.md).\n\n![plot](connect.svg)\n\n\
         - {date}, {machine}, kernel {kernel}, all on core {core}\n- {}\n\
         - load average {before:.1} before and {after:.1} after; {seconds:.0} s\n",
        report.versions.join("; ")
    )
}

fn hooks(text: &mut String, report: &Report) {
    text.push_str(
        "\n## Hooks, by the kernel's clock\n\n\
         For one TCP connection. The times include the clock itself, the differences do not.\n\n\
         | | variant | hook | runs | ns each | above empty, ns [95 %] | above storage, ns [95 %] \
         |\n|---|---|---|---|---|---|---|\n",
    );
    for cost in &report.hooks {
        let HookCost { scenario, variant, hook, runs_per_operation: runs, .. } = cost;
        let _ = writeln!(
            text,
            "| {scenario} | {variant} | {hook} | {runs:.1} | {:.0} | {} | {} |",
            cost.nanoseconds.median,
            interval(&cost.above_empty, 0),
            interval(&cost.above_storage, 0)
        );
    }
}

/// A variant's ratios to the bare one and to the one with empty programs, where it has them.
fn ratios(report: &Report, scenario: &Scenario, timing: &Timing) -> (String, String) {
    let against = |base: Variant| {
        report
            .ratio(&scenario.name, &timing.variant, base.name)
            .map_or(String::new(), |ratio| interval(&ratio.ratio, 3))
    };
    (against(BARE), against(EMPTY))
}

/// A median with its confidence interval.
fn interval(spread: &Spread, digits: usize) -> String {
    format!("{:.digits$} [{:.digits$}, {:.digits$}]", spread.median, spread.low, spread.high)
}
