//! The outcomes of stages.

use std::time::Duration;

/// How many passed and how many failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
}

impl Counts {
    pub(super) const ONE_PASSED: Self = Self { passed: 1, failed: 0 };
    pub(super) const ONE_FAILED: Self = Self { passed: 0, failed: 1 };

    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            passed: sum.passed + one.passed,
            failed: sum.failed + one.failed,
        })
    }
}

/// A test that ran, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TimedTest {
    /// `tests/agent: change::a_route_is_added`.
    pub(super) name: String,
    pub(super) took: Duration,
}

/// The result of a stage.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It ran. A stage that runs no tests counts as one.
    Ran { took: Duration, counts: Counts, tests: Vec<TimedTest> },
    /// It was not run since this stage, which it needs, did not pass.
    Blocked { by: &'static str },
    /// It can't be run here, for this reason, and that is no failure.
    NotChecked { reason: String },
}

impl Outcome {
    /// A stage that was blocked counts as failed: nobody knows whether it passes.
    pub(super) fn counts(&self) -> Counts {
        match self {
            Self::Ran { counts, .. } => *counts,
            Self::Blocked { .. } => Counts::ONE_FAILED,
            Self::NotChecked { .. } => Counts::default(),
        }
    }

    pub(super) fn passed(&self) -> bool {
        self.counts().failed == 0
    }
}
