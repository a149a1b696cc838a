//! Figures and what was promised of them, for a program, for a person, and as a plot.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{host, plot, statistics::Spread};

/// What a run found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// When it began, UTC.
    pub date: String,
    /// Kernel release, processor, cores.
    pub machine: String,
    /// Load averages of one minute, before and after.
    pub load: [f64; 2],
    /// What was measured, in the order in which it was.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figure {
    /// What.
    pub what: String,
    /// Its unit.
    pub unit: String,
    /// The middle one.
    pub median: f64,
    /// The one that 99 of 100 are not above.
    pub p99: f64,
    /// How many were measured.
    pub count: usize,
    /// What was promised of the 99th of 100; nothing where it is told for comparison only.
    pub limit: Option<f64>,
}

impl Figure {
    pub(super) fn of(
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

    /// Its 99th of 100, and down to its median, as shares of what was promised.
    fn share(&self) -> Option<(&str, Spread)> {
        let limit = self.limit?;
        let (median, p99) = (self.median / limit, self.p99 / limit);
        Some((
            &self.what,
            Spread { median: p99, quartile_1: median, quartile_3: p99, ..Spread::default() },
        ))
    }

    /// Whether the promise is kept, where there is one.
    #[must_use]
    pub fn met(&self) -> Option<bool> {
        self.limit.map(|limit| self.p99 < limit)
    }
}

impl Report {
    /// Without a figure, now and on this machine.
    pub(super) fn begin() -> Self {
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string();
        Self { date, machine: host::machine(), load: [host::load(), 0.0], ..Self::default() }
    }

    /// Nothing more is measured.
    pub(super) fn finish(&mut self) {
        self.load[1] = host::load();
    }

    /// The report for a person: under `title`, with an explanation below the figures.
    #[must_use]
    pub fn markdown(&self, title: &str, explanation: &str) -> String {
        let mut text = format!("# {title}\n\n");
        let _ = writeln!(
            text,
            "{}, {}. Load average {:.1} before and {:.1} after, on {}.\n",
            self.date,
            self.machine,
            self.load[0],
            self.load[1],
            host::company(self.load[0])
        );
        let _ = writeln!(
            text,
            "| | unit | median | 99 of 100 | of | promised below | kept \
                |\n|---|---|---|---|---|---|---|"
        );
        for figure in &self.figures {
            let Figure { what, unit, median, p99, count, limit } = figure;
            let limit = limit.map(|limit| limit.to_string()).unwrap_or_default();
            let kept = figure.met().map_or("", |met| if met { "yes" } else { "**no**" });
            let _ = writeln!(
                text,
                "| {what} | {unit} | {median:.2} | {p99:.2} | {count} | {limit} | {kept} |"
            );
        }
        let _ = writeln!(text, "\n{explanation}");
        text
    }
}

impl Report {
    /// A bar for each promise: what was measured, as a share of what was promised.
    pub(super) fn svg(&self, subject: &str) -> String {
        let shares: Vec<_> = self.figures.iter().filter_map(Figure::share).collect();
        let bars: Vec<_> = shares.iter().map(|(what, spread)| (*what, spread)).collect();
        let mut body = String::new();
        let scale = bars.iter().map(|(_, spread)| spread.quartile_3).fold(1.1, f64::max).min(FAR);
        let height = 16.0
            + plot::panel(
                &mut body,
                16.0,
                &format!("{subject}: 99 of 100 against what was promised"),
                &bars,
                scale,
            );
        let note = format!(
            "{}; {}. Dashed: the limit; whiskers: from the median to 99 of 100.",
            self.machine, self.date
        );
        plot::document(&body, height, &note)
    }
}

/// Shares beyond this are cut off, and say so by their number.
const FAR: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_of_a_hundred_is_judged_and_not_the_median() {
        let figure = Figure::of("x", "ms", 99.0, (1..=100).rev().map(f64::from).collect());
        assert_eq!((figure.median, figure.p99, figure.met()), (50.0, 99.0, Some(false)));
        assert_eq!(Figure::of("x", "ms", 99.5, vec![1.0]).met(), Some(true));
        assert_eq!(Figure::of("x", "ms", None, vec![]).met(), None);
    }
}
