//! The tables of `bench/README.md`: each measure of the published runs, ours beside each peer's.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    options::{Options, json, write_files},
    peers::report::{Figure, OURS, Report, digits},
};

/// The benchmarks that compare peers, in the order of the tables.
pub const NAMES: [&str; 5] = ["scale", "failover", "upgrade", "memory", "throughput"];

const BEGIN: &str = "<!-- Written by `cargo xtask bench` from results/. -->\n";
const END: &str = "<!-- End of what is written. -->\n";

/// Prints a report, and writes `NAME.json`, `NAME.md` and `NAME.svg` into the results' folder.
pub(crate) fn publish(report: &Report, options: &Options, name: &str, title: &str) -> Result<()> {
    let text = report.markdown(title, name);
    print!("{text}");
    let Some(folder) = options.folder() else { return Ok(()) };
    let file = |extension| format!("{name}.{extension}");
    write_files(
        &folder,
        &[(&file("json"), json(report)?), (&file("svg"), report.svg()), (&file("md"), text)],
    )?;
    eprintln!("written to {}", folder.join(file("{json,md,svg}")).display());
    // Elsewhere, a page beside the folder is not ours.
    if options.output.is_none() { update(&folder) } else { Ok(()) }
}

/// Writes the tables of all results into the page beside their folder.
fn update(results: &Path) -> Result<()> {
    let page = results.with_file_name("README.md");
    let text =
        fs::read_to_string(&page).with_context(|| format!("failed to read {}", page.display()))?;
    let text = replace(&text, &tables(results)?)?;
    fs::write(&page, text).with_context(|| format!("failed to write {}", page.display()))
}

/// The page with other tables.
fn replace(page: &str, tables: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("the page has no place for the tables")?;
    let (_, after) = rest.split_once(END).context("the page's tables have no end")?;
    Ok(format!("{before}{BEGIN}\n{tables}{END}{after}"))
}

/// The tables of all results of a folder.
fn tables(results: &Path) -> Result<String> {
    let mut text = String::new();
    for name in NAMES {
        let path = results.join(format!("{name}.json"));
        if !path.is_file() {
            continue;
        }
        let json = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let report: Report = serde_json::from_slice(&json)
            .with_context(|| format!("{} is not a report", path.display()))?;
        let Report { date, machine, .. } = &report;
        let _ = write!(text, "**[{name}](results/{name}.md)**, {date},\n{machine}\n\n");
        text.push_str(&table(&report));
        text.push('\n');
    }
    Ok(text)
}

/// A row for each measure, a column for each peer.
fn table(report: &Report) -> String {
    let mut peers: Vec<&str> = Vec::new();
    for figure in &report.figures {
        if !peers.contains(&figure.peer.as_str()) {
            peers.push(&figure.peer);
        }
    }
    let mut text = format!("| | {} |\n|---|{}\n", peers.join(" | "), "---|".repeat(peers.len()));
    for measure in report.measures() {
        let figures: Vec<&Figure> = report.of(measure).collect();
        let unit = figures.first().map_or("", |figure| &figure.unit);
        let of = |peer: &str| figures.iter().find(|figure| figure.peer == peer);
        let ours = of(OURS).map(|figure| figure.value.median);
        let cell = |peer: &&str| {
            of(peer).map_or(String::new(), |figure| {
                let (median, digits) = (figure.value.median, digits(figure.value.median));
                match ours {
                    Some(ours) if is_better(figure, ours) => format!("**{median:.digits$}**"),
                    _ => format!("{median:.digits$}"),
                }
            })
        };
        let cells: Vec<String> = peers.iter().map(cell).collect();
        let unit = if unit.is_empty() { String::new() } else { format!(", {unit}") };
        let _ = writeln!(text, "| {measure}{unit} | {} |", cells.join(" | "));
    }
    text
}

/// Whether a peer's whole confidence interval is on the better side of our median.
fn is_better(figure: &Figure, ours: f64) -> bool {
    if figure.peer == OURS {
        false
    } else if figure.more_is_better {
        figure.value.low > ours
    } else {
        figure.value.high < ours
    }
}

#[cfg(test)]
mod tests {
    use testbed::workspace;

    use super::*;

    #[test]
    fn the_readme_has_the_tables_of_the_published_results() {
        let page = fs::read_to_string(workspace::root().join("bench/README.md")).unwrap();
        let results = workspace::root().join("bench/results");
        let expected = replace(&page, &tables(&results).unwrap()).unwrap();
        assert!(page == expected, "run a benchmark, or put this there:\n{expected}");
    }

    #[test]
    fn a_peer_that_is_better_is_bold() {
        let figure = |peer: &str, value| Figure::new("time", peer, "ms", vec![value]);
        let figures = vec![figure(OURS, 5.0), figure("fast", 4.0), figure("slow", 6.0)];
        let text = table(&Report { figures, ..Report::default() });
        assert_eq!(
            text,
            "| | redirector | fast | slow |\n|---|---|---|---|\n\
             | time, ms | 5.00 | **4.00** | 6.00 |\n"
        );
    }
}
