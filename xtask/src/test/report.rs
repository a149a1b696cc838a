//! The table at the end.

use std::fmt;

use super::{Counts, Outcome};
use crate::progress::seconds;

/// What became of each stage.
#[derive(Default)]
pub(super) struct Report {
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    outcome: Result<Outcome, String>,
}

impl Report {
    pub(super) fn add(&mut self, name: &'static str, outcome: Outcome) {
        self.rows.push(Row { name, outcome: Ok(outcome) });
    }

    /// A stage that was not run counts as failed: what nobody looked at is not fine.
    pub(super) fn not_run(&mut self, name: &'static str, cause: &str) {
        self.rows.push(Row { name, outcome: Err(format!("not run, since {cause} failed")) });
    }

    pub(super) fn last_failed(&self) -> bool {
        self.rows.last().is_some_and(|row| row.counts().failed > 0)
    }

    pub(super) fn passed(&self) -> usize {
        self.rows.iter().map(|row| row.counts().passed).sum()
    }

    pub(super) fn failed(&self) -> usize {
        self.rows.iter().map(|row| row.counts().failed).sum()
    }
}

impl Row {
    fn counts(&self) -> Counts {
        self.outcome.as_ref().map_or(Counts { passed: 0, failed: 1 }, |outcome| outcome.counts)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        for row in &self.rows {
            let Counts { passed, failed } = row.counts();
            let verdict = if failed == 0 { "ok  " } else { "FAIL" };
            match &row.outcome {
                Ok(outcome) => writeln!(
                    f,
                    "{verdict} {:width$} {:>8}  {passed} passed, {failed} failed",
                    row.name,
                    seconds(outcome.took)
                )?,
                Err(cause) => writeln!(f, "{verdict} {:width$} {:>8}  {cause}", row.name, "")?,
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
    fn a_stage_that_was_not_run_is_shown_and_counts_as_failed() {
        let mut report = Report::default();
        report.add(
            "setup",
            Outcome { took: Duration::from_millis(1500), counts: Counts { passed: 0, failed: 1 } },
        );
        report.not_run("unit tests", "setup");
        assert_eq!((report.passed(), report.failed()), (0, 2));
        assert!(
            report.to_string().contains("unit tests")
                && report.to_string().contains("since setup failed"),
            "{report}"
        );
    }
}
