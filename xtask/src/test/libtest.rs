//! Reads what `cargo test` prints: how many tests passed, and how long each took.
//!
//! libtest shows times only under an unstable option, which a stable compiler's libtest accepts
//! where `RUSTC_BOOTSTRAP` is set. Cargo's runner sets it for the test programs alone: with the
//! variable in cargo's own environment, build scripts that watch it would run again.

use std::{process::Command, time::Duration};

use super::outcome::{Counts, TimedTest};

/// Gives the test programs an environment in which they report times.
const RUNNER: &str = r#"target."cfg(unix)".runner = ["env", "RUSTC_BOOTSTRAP=1"]"#;

/// Makes a `cargo test` command, without `--` yet, report times; tests may follow.
pub(super) fn report_times(command: &mut Command) {
    command.args(["--config", RUNNER, "--", "-Zunstable-options", "--report-time"]);
}

/// The sum over all lines `test result: ok. 12 passed; 0 failed; …`.
pub(super) fn count(output: &str) -> Counts {
    output.lines().filter_map(|line| line.strip_prefix("test result: ")).map(summary).sum()
}

fn summary(line: &str) -> Counts {
    let mut counts = Counts::default();
    for field in line.split(['.', ';']).map(str::trim) {
        match field.split_once(' ') {
            Some((number, "passed")) => counts.passed += number.parse::<usize>().unwrap_or(0),
            Some((number, "failed")) => counts.failed += number.parse::<usize>().unwrap_or(0),
            _ => {}
        }
    }
    counts
}

/// The times in lines `test change::a_route_is_added ... ok <0.250s>`, below cargo's line
/// `Running tests/agent/main.rs (…)` for their program.
pub(super) fn times(output: &str) -> Vec<TimedTest> {
    let mut program = "";
    let mut tests = Vec::new();
    for line in output.lines() {
        if let Some(running) = line.trim_start().strip_prefix("Running ") {
            program = running.split(" (").next().unwrap_or(running);
        } else if let Some((name, took)) = timed(line) {
            tests.push(TimedTest { name: format!("{}: {name}", shorten(program)), took });
        }
    }
    tests
}

fn timed(line: &str) -> Option<(&str, Duration)> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let seconds = verdict.rsplit_once('<')?.1.strip_suffix("s>")?;
    Some((name, Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?))
}

/// `tests/agent` of `tests/agent/main.rs`, `src/lib.rs` of `unittests src/lib.rs`.
fn shorten(program: &str) -> &str {
    let program = program.strip_prefix("unittests ").unwrap_or(program);
    program.strip_suffix("/main.rs").filter(|rest| *rest != "src").unwrap_or(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_closing_lines_are_summed() {
        let output = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                      noise\n\
                      test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured\n";
        assert_eq!(count(output), Counts { passed: 15, failed: 2 });
    }

    #[test]
    fn times_are_read_with_the_program_that_ran_the_test() {
        let output = "     Running tests/agent/main.rs (target/debug/deps/agent-0123)\n\
                      test change::a_route_is_added ... ok <1.250s>\n\
                      test change::no_time ... ok\n\
                      test change::broken ... FAILED <0.001s>\n";
        let times = times(output);
        assert_eq!(times.len(), 2);
        assert_eq!(times[0].name, "tests/agent: change::a_route_is_added");
        assert_eq!(times[0].took, Duration::from_millis(1250));
    }
}
