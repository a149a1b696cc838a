//! Figures and their targets: as JSON, as Markdown, and as a plot.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{host, plot, statistics::Spread};

/// The results of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// When it began, UTC.
    pub date: String,
    /// Kernel release, processor, cores.
    pub machine: String,
    /// Load averages of one minute, before and after.
    pub load: [f64; 2],
    /// The figures, in the order of measurement.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figure {
    /// What is measured.
    pub what: String,
    /// Its unit.
    pub unit: String,
    /// The median.
    pub median: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The number of measurements.
    pub count: usize,
    /// The target for the 99th percentile; `None` for a figure that is shown for comparison only.
    pub limit: Option<f64>,
}

impl Figure {
    pub(crate) fn of(
        what: &str,
        unit: &str,
        limit: impl Into<Option<f64>>,
        mut values: Vec<f64>,
    ) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            values
                .get(((values.len() as f64 * share).ceil() as usize).saturating_sub(1))
                .copied()
                .unwrap_or_default()
        };
        Self {
            what: what.into(),
            unit: unit.into(),
            median: at(0.5),
            p99: at(0.99),
            count: values.len(),
            limit: limit.into(),
        }
    }

    /// The 99th percentile, with a whisker from the median, as shares of the target.
    fn share(&self) -> Option<(&str, Spread)> {
        let limit = self.limit?;
        let (median, p99) = (self.median / limit, self.p99 / limit);
        Some((
            &self.what,
            Spread { median: p99, quartile_1: median, quartile_3: p99, ..Spread::default() },
        ))
    }

    /// Whether the target is met, if there is one.
    #[must_use]
    pub fn met(&self) -> Option<bool> {
        self.limit.map(|limit| self.p99 < limit)
    }
}

impl Report {
    /// A report of this machine and moment without figures.
    pub(crate) fn begin() -> Self {
        Self {
            date: host::now(),
            machine: host::machine(),
            load: [host::load(), 0.0],
            ..Self::default()
        }
    }

    /// Records the load after the last measurement.
    pub(crate) fn finish(&mut self) {
        self.load[1] = host::load();
    }

    /// The report as Markdown: under `title`, with an explanation below the figures.
    #[must_use]
    pub fn markdown(&self, title: &str, explanation: &str) -> String {
        let mut text = format!("# {title}\n\n");
        let Self { date, machine, load: [before, after], .. } = self;
        let _ = writeln!(
            text,
            "{date}, {machine}. Load average {before:.1} before and {after:.1} after: {}.\n",
            host::describe_load(*before)
        );
        text.push_str(
            "| | unit | median | p99 | count | target: p99 below | met |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for figure in &self.figures {
            let Figure { what, unit, median, p99, count, limit } = figure;
            let limit = limit.map(|limit| limit.to_string()).unwrap_or_default();
            let met = figure.met().map_or("", |met| if met { "yes" } else { "**no**" });
            let _ = writeln!(
                text,
                "| {what} | {unit} | {median:.2} | {p99:.2} | {count} | {limit} | {met} |"
            );
        }
        let _ = writeln!(text, "\n{explanation}");
        text
    }

    /// A bar for each target: the 99th percentile as a share of it.
    pub(crate) fn svg(&self, subject: &str) -> String {
        let shares: Vec<_> = self.figures.iter().filter_map(Figure::share).collect();
        let bars: Vec<_> = shares.iter().map(|(what, spread)| (*what, spread)).collect();
        let title = format!("{subject}: 99th percentile as a share of the target");
        let note = format!(
            "{}; {}. Dashed: the target; whiskers: from the median to the 99th percentile.",
            self.machine, self.date
        );
        plot::single(&title, &bars, &note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_is_judged_not_the_median() {
        let figure = Figure::of("x", "ms", 99.0, (1..=100).rev().map(f64::from).collect());
        assert_eq!((figure.median, figure.p99, figure.met()), (50.0, 99.0, Some(false)));
        assert_eq!(Figure::of("x", "ms", 99.5, vec![1.0]).met(), Some(true));
        assert_eq!(Figure::of("x", "ms", None, vec![]).met(), None);
    }
}
