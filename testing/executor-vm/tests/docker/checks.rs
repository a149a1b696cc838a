//! Checks, each of which prints one line.

use std::{
    panic::Location,
    time::{Duration, Instant},
};

use anyhow::Result;

/// What has been checked so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    passed: usize,
    failed: Vec<String>,
}

impl Checks {
    /// Runs a check, whose value is a detail for the line. One that fails does not stop the others.
    #[track_caller]
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Result<String>) {
        let (started, place) = (Instant::now(), Location::caller());
        let result = check();
        let took = seconds(started.elapsed());
        match result {
            Ok(detail) if detail.is_empty() => println!("  ok   {name} ({took})"),
            Ok(detail) => println!("  ok   {name}: {detail} ({took})"),
            Err(error) => {
                println!("  FAIL {name}: {error:#} ({took}; {place})");
                self.failed.push(name.to_owned());
                return;
            }
        }
        self.passed += 1;
    }

    /// Panics with the names of the checks that failed.
    pub(crate) fn finish(self) {
        let Self { passed, failed } = self;
        println!("{passed} checks passed, {} failed", failed.len());
        assert!(failed.is_empty(), "failed: {}", failed.join("; "));
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
