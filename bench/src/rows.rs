//! Figures with their spread and their goal: as Markdown, and as a plot.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{plot, statistics::Spread};

/// A bound for a median.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The largest allowed value.
    AtMost(f64),
    /// The smallest allowed value.
    AtLeast(f64),
}

impl Goal {
    /// Whether a median meets it.
    #[must_use]
    pub fn is_met_by(self, median: f64) -> bool {
        match self {
            Self::AtMost(limit) => median <= limit,
            Self::AtLeast(limit) => median >= limit,
        }
    }

    const fn bound(self) -> f64 {
        match self {
            Self::AtMost(bound) | Self::AtLeast(bound) => bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("at most {limit}"),
            Self::AtLeast(limit) => format!("at least {limit}"),
        }
    }
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What is measured.
    pub what: String,
    /// Its unit; empty for a ratio.
    pub unit: String,
    /// The measurements.
    pub value: Spread,
    /// The goal; `None` for a figure that is shown for comparison only.
    pub goal: Option<Goal>,
}

impl Row {
    pub(crate) fn new(
        what: impl Into<String>,
        unit: &str,
        values: Vec<f64>,
        goal: Option<Goal>,
    ) -> Self {
        Self { what: what.into(), unit: unit.to_owned(), value: Spread::of(values), goal }
    }

    /// Whether the goal is met, if there is one.
    #[must_use]
    pub fn met(&self) -> Option<bool> {
        self.goal.map(|goal| goal.is_met_by(self.value.median))
    }
}

/// A table of rows.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text =
        String::from("| | median [95 %] | quartiles | goal | |\n|---|---|---|---|---|\n");
    for row in rows {
        let Row { what, unit, value, goal } = row;
        let digits = if unit.is_empty() { 3 } else { 1 };
        let met = row.met().map_or("", |met| if met { "met" } else { "**missed**" });
        let _ = writeln!(
            text,
            "| {what} | {:.digits$} [{:.digits$}, {:.digits$}] {unit} | {:.digits$} to \
                {:.digits$} | {} | {met} |",
            value.median,
            value.low,
            value.high,
            value.quartile_1,
            value.quartile_3,
            goal.map(Goal::text).unwrap_or_default()
        );
    }
    text
}

/// A bar for each row with a goal: the median as a share of it.
pub(crate) fn svg(rows: &[Row], title: &str, note: &str) -> String {
    let share = |row: &Row| Some((row.what.clone(), row.value.scaled(1.0 / row.goal?.bound())));
    let shares: Vec<_> = rows.iter().filter_map(share).collect();
    let bars: Vec<_> = shares.iter().map(|(what, spread)| (what.as_str(), spread)).collect();
    plot::single(title, &bars, note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_judged_by_the_kind_of_its_goal() {
        let row = |goal| Row::new("x", "", vec![1.0, 2.0, 9.0], Some(goal));
        assert_eq!(row(Goal::AtMost(2.0)).met(), Some(true));
        assert_eq!(row(Goal::AtMost(1.9)).met(), Some(false));
        assert_eq!(row(Goal::AtLeast(2.1)).met(), Some(false));
        assert_eq!(Row::new("x", "", vec![], None).met(), None);
        let text = markdown(&[row(Goal::AtLeast(2.1))]);
        assert!(text.contains("| at least 2.1 | **missed** |"), "{text}");
    }
}
