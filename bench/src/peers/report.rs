//! Measures of all peers: as JSON, as Markdown, and as a plot.

use std::{collections::HashMap, fmt::Write as _, process::Command};

use serde::{Deserialize, Serialize};
use testbed::packages;

use crate::{host, plot, statistics::Spread};

/// The label of our own rows.
pub(crate) const OURS: &str = "redirector";
/// The label of a connect without anything.
pub(crate) const BARE: &str = "bare";

/// The results of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When it began, UTC.
    pub date: String,
    /// Kernel release, processor, cores.
    pub machine: String,
    /// The core of the measured processes.
    pub core: usize,
    /// Name and version of the redirector and its peers.
    pub versions: Vec<String>,
    /// Load averages of one minute, before and after.
    pub load: [f64; 2],
    /// Whether it was a quick run, whose figures mean little.
    pub quick: bool,
    /// What was measured, in order.
    pub figures: Vec<Figure>,
}

/// One measure of one peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What is measured.
    pub measure: String,
    /// Whose.
    pub peer: String,
    /// The unit of the value.
    pub unit: String,
    /// The measurements.
    pub value: Spread,
    /// The value divided by the bare one of the same round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times_bare: Option<Spread>,
    /// The value divided by redirector's of the same round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times_ours: Option<Spread>,
    /// What the value does not show.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Whether more is better.
    #[serde(default)]
    pub more_is_better: bool,
}

impl Figure {
    /// The measurements of one peer alone.
    pub(crate) fn new(measure: &str, peer: &str, unit: &str, values: Vec<f64>) -> Self {
        let value = Spread::of(values);
        let (measure, peer, unit) = (measure.to_owned(), peer.to_owned(), unit.to_owned());
        Self { measure, peer, unit, value, ..Self::default() }
    }

    pub(crate) fn with_note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }
}

/// The figures of peers that took turns: the values of each, by round.
pub(crate) fn compare(
    measure: &str,
    unit: &str,
    peers: &[&'static str],
    rounds: &[Vec<f64>],
) -> Vec<Figure> {
    let position = |label| peers.iter().position(|peer| *peer == label);
    let ratio = |values: &[f64], base: Option<usize>| {
        let base = rounds.get(base?)?;
        let ratios: Vec<f64> = values.iter().zip(base).map(|(value, base)| value / base).collect();
        // Nothing is a multiple of zero.
        ratios.iter().all(|ratio| ratio.is_finite()).then(|| Spread::of(ratios))
    };
    let figure = |(peer, values): (&&str, &Vec<f64>)| Figure {
        times_bare: ratio(values, position(BARE)),
        times_ours: ratio(values, position(OURS)),
        ..Figure::new(measure, peer, unit, values.clone())
    };
    peers.iter().zip(rounds).map(figure).collect()
}

impl Report {
    /// A report of this machine and moment without figures.
    pub(crate) fn begin(core: usize, quick: bool) -> Self {
        Self {
            date: host::now(),
            machine: host::machine(),
            core,
            versions: versions(),
            load: [host::load(), 0.0],
            quick,
            figures: Vec::new(),
        }
    }

    /// Records the load after the last measurement.
    pub(crate) fn finish(mut self) -> Self {
        self.load[1] = host::load();
        self
    }

    /// The measures, in order.
    #[must_use]
    pub fn measures(&self) -> Vec<&str> {
        let mut measures: Vec<&str> = Vec::new();
        for figure in &self.figures {
            if !measures.contains(&figure.measure.as_str()) {
                measures.push(&figure.measure);
            }
        }
        measures
    }

    /// The figures of a measure.
    pub fn of<'a>(&'a self, measure: &'a str) -> impl Iterator<Item = &'a Figure> {
        self.figures.iter().filter(move |figure| figure.measure == measure)
    }

    /// The report as Markdown; `name` is that of the benchmark.
    pub(crate) fn markdown(&self, title: &str, name: &str) -> String {
        let Self { date, machine, core, load: [before, after], .. } = self;
        let mut text = format!(
            "# {title}\n\nMade by `cargo xtask bench {name}`; \
             [how to read it](../README.md#{name}).\n\n![plot]({name}.svg)\n\n\
             - {date}, {machine}, measured processes on core {core}\n- {}\n\
             - load average {before:.1} before and {after:.1} after: {}\n",
            self.versions.join("; "),
            host::describe_load(*before)
        );
        for measure in self.measures() {
            let _ = write!(
                text,
                "\n## {measure}\n\n| | median [95 %] | quartiles | × bare | × redirector | |\n\
                 |---|---|---|---|---|---|\n"
            );
            self.of(measure).for_each(|figure| row(&mut text, figure));
        }
        text
    }

    /// A panel for each measure: the peers' medians as multiples of ours.
    pub(crate) fn svg(&self) -> String {
        let ours: HashMap<&str, f64> = self
            .figures
            .iter()
            .filter(|figure| figure.peer == OURS && figure.value.median > 0.0)
            .map(|figure| (figure.measure.as_str(), figure.value.median))
            .collect();
        let mut body = String::new();
        let mut y = 16.0;
        for measure in self.measures() {
            let Some(ours) = ours.get(measure) else { continue };
            let bars: Vec<_> = self
                .of(measure)
                .map(|figure| (figure.peer.as_str(), figure.value.scaled(1.0 / ours)))
                .collect();
            let bars: Vec<_> = bars.iter().map(|(peer, spread)| (*peer, spread)).collect();
            y += plot::panel(&mut body, y, &format!("{measure}: × redirector"), &bars);
        }
        let note = format!("{}; {}. Whiskers: quartiles.", self.machine, self.date);
        plot::document(&body, y, &note)
    }
}

fn row(text: &mut String, figure: &Figure) {
    let Figure { peer, unit, value, note, .. } = figure;
    let digits = digits(value.median);
    let ratio = |spread: &Option<Spread>| {
        spread.map_or(String::new(), |ratio| {
            format!("{:.3} [{:.3}, {:.3}]", ratio.median, ratio.low, ratio.high)
        })
    };
    let _ = writeln!(
        text,
        "| {peer} | {:.digits$} [{:.digits$}, {:.digits$}] {unit} | {:.digits$} to {:.digits$} | \
         {} | {} | {note} |",
        value.median,
        value.low,
        value.high,
        value.quartile_1,
        value.quartile_3,
        ratio(&figure.times_bare),
        ratio(&figure.times_ours),
    );
}

/// A number of routes, with a separator.
pub(crate) fn routes(count: u32) -> String {
    match count {
        1 => "1 route".to_owned(),
        _ if count < 1000 => format!("{count} routes"),
        _ => format!("{},{:03} routes", count / 1000, count % 1000),
    }
}

/// Three significant digits, or more of a large number.
pub(crate) fn digits(value: f64) -> usize {
    match value {
        _ if value >= 100.0 || value == 0.0 => 0,
        _ if value >= 10.0 => 1,
        _ if value >= 1.0 => 2,
        _ => 3,
    }
}

fn versions() -> Vec<String> {
    let ask = |program: &str, argument: &str| {
        let output = packages::path_of(program)
            .and_then(|path| Ok(Command::new(path).arg(argument).output()?.stdout))
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&output).into_owned();
        text.lines().next().unwrap_or_default().trim().to_owned()
    };
    vec![
        format!("redirector {}", env!("CARGO_PKG_VERSION")),
        ask("nft", "--version"),
        ask("iptables", "--version"),
        ask("haproxy", "-v"),
        ask("dnsmasq", "--version"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let peers = [BARE, OURS, "a peer"];
        let rounds = [vec![1.0, 10.0, 2.0], vec![2.0, 20.0, 4.0], vec![8.0, 80.0, 16.0]];
        let figures = compare("x", "µs", &peers, &rounds);
        let medians = |figure: &Figure| {
            [figure.times_bare, figure.times_ours].map(|ratio| ratio.unwrap().median)
        };
        assert_eq!(medians(&figures[2]), [8.0, 4.0]);
        let report = Report { figures, ..Report::default() };
        assert_eq!(report.figures[0].times_bare.unwrap().median, 1.0);
        let zero = compare("x", "", &peers[..2], &[vec![0.0], vec![7.0]]);
        assert_eq!(zero[1].times_bare, None);
        let text = report.markdown("X", "x");
        assert!(text.contains("| a peer | 16.0 [8.0, 80.0] µs |"), "{text}");
        assert_eq!(report.measures(), ["x"]);
        assert!(report.svg().contains("x: × redirector"));
    }
}
