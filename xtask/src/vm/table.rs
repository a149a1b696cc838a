//! The table of kernels and scenarios, and the sizes of the programs on each kernel.

use std::fmt::Write as _;

use super::boot::Outcome;

/// For a terminal.
pub(super) fn text(outcomes: &[Outcome]) -> String {
    render(outcomes, "  ", "  ", "")
}

/// For a file.
pub(super) fn markdown(outcomes: &[Outcome]) -> String {
    format!(
        "# The datapath on old and new kernels\n\nMade by `cargo xtask vm`, under CAP_BPF and \
            CAP_NET_ADMIN alone.\n\n{}",
        render(outcomes, "| ", " | ", " |")
    )
}

fn render(outcomes: &[Outcome], left: &str, between: &str, right: &str) -> String {
    let kernels: Vec<String> = outcomes
        .iter()
        .map(|outcome| {
            format!("{} {}", short(&outcome.release, outcome.entry.name), outcome.entry.arch.name())
        })
        .collect();
    let mut rows = vec![std::iter::once(String::new()).chain(kernels).collect::<Vec<_>>()];
    let scenarios = names(outcomes, |outcome| {
        outcome.scenarios.iter().map(|scenario| scenario.name.clone()).collect()
    });
    for name in scenarios {
        let verdict = |outcome: &Outcome| match outcome
            .scenarios
            .iter()
            .find(|scenario| scenario.name == name)
        {
            Some(scenario) if scenario.passed => "ok".to_owned(),
            Some(_) => "FAIL".to_owned(),
            None => "not played".to_owned(),
        };
        rows.push(std::iter::once(name.clone()).chain(outcomes.iter().map(verdict)).collect());
    }
    let programs = names(outcomes, |outcome| {
        outcome.programs.iter().map(|program| program.name.clone()).collect()
    });
    for name in programs {
        let size = |outcome: &Outcome| match outcome
            .programs
            .iter()
            .find(|program| program.name == name)
        {
            Some(program) => {
                let verified =
                    program.verified.map_or_else(|| "–".to_owned(), |count| count.to_string());
                format!("{verified} / {}", program.bytes)
            }
            None => "–".to_owned(),
        };
        rows.push(std::iter::once(name.clone()).chain(outcomes.iter().map(size)).collect());
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{left}{}{right}", cells.join(between).trim_end());
        if number == 0 && !right.is_empty() {
            let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
        }
    }
    let _ = writeln!(
        text,
        "\nprograms: instructions that the verifier processed (not reported before 5.16) / bytes \
            of machine code"
    );
    text
}

/// The release without its flavour, `6.1.0-56`; the name in the list when the kernel reported no
/// release.
fn short<'a>(release: &'a str, name: &'a str) -> &'a str {
    if release.is_empty() { name } else { release.split("-cloud").next().unwrap_or(release) }
}

/// The names without duplicates, in the order of their first appearance.
fn names(outcomes: &[Outcome], of: impl Fn(&Outcome) -> Vec<String>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in outcomes.iter().flat_map(of) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
