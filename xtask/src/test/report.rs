//! The table at the end: the stages with their times, and the slowest tests.

use std::{cmp::Reverse, fmt};

use super::outcome::{Counts, Outcome, TimedTest};
use crate::progress::seconds;

/// How many tests are listed.
const SLOWEST: usize = 10;

/// The outcome of each stage.
#[derive(Default)]
pub(super) struct Report {
    rows: Vec<(&'static str, Outcome)>,
}

impl Report {
    pub(super) fn add(&mut self, name: &'static str, outcome: Outcome) {
        self.rows.push((name, outcome));
    }

    /// The sum over all stages.
    pub(super) fn counts(&self) -> Counts {
        self.rows.iter().map(|(_, outcome)| outcome.counts()).sum()
    }

    fn slowest(&self) -> Vec<&TimedTest> {
        let mut tests: Vec<_> = self
            .rows
            .iter()
            .filter_map(|(_, outcome)| match outcome {
                Outcome::Ran { tests, .. } => Some(tests),
                Outcome::Blocked { .. } | Outcome::NotChecked { .. } => None,
            })
            .flatten()
            .collect();
        tests.sort_by_key(|test| Reverse(test.took));
        tests.truncate(SLOWEST);
        tests
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slowest = self.slowest();
        if !slowest.is_empty() {
            writeln!(f, "slowest tests:")?;
        }
        for test in slowest {
            writeln!(f, "  {:>8}  {}", seconds(test.took), test.name)?;
        }
        writeln!(f, "stages:")?;
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, outcome) in &self.rows {
            match outcome {
                Outcome::Ran { took, counts: Counts { passed, failed }, .. } => {
                    let verdict = if outcome.passed() { "ok  " } else { "FAIL" };
                    let took = seconds(*took);
                    writeln!(
                        f,
                        "{verdict} {name:width$} {took:>8}  {passed} passed, {failed} failed"
                    )?;
                }
                Outcome::Blocked { by } => {
                    writeln!(f, "FAIL {name:width$} {:>8}  not run, since {by} failed", "")?;
                }
                Outcome::NotChecked { reason } => {
                    writeln!(f, "--   {name:width$} {:>8}  not checked: {reason}", "")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_the_ten_slowest_tests_are_listed() {
        let test = |number: u64| TimedTest {
            name: format!("test_{number}"),
            took: Duration::from_secs(number),
        };
        let mut report = Report::default();
        report.add(
            "unit tests",
            Outcome::Ran {
                took: Duration::from_secs(1),
                counts: Counts { passed: 12, failed: 0 },
                tests: (1..=12).map(test).collect(),
            },
        );
        let text = report.to_string();
        assert!(text.starts_with("slowest tests:\n      12 s  test_12\n"), "{text}");
        assert!(text.contains("test_3\n") && !text.contains("test_2\n"), "{text}");
        assert!(text.contains("ok   unit tests   1.00 s  12 passed, 0 failed\n"), "{text}");
    }
}
