//! `cargo xtask test`: formatting, lints, unit tests, documentation, the real-kernel tests, the
//! image, the demo, the other kernels and the fuzz targets, one after the other.
//!
//! A stage that fails shows all it wrote and does not stop the others, except those that need it.
//! The last line is `N passed, N failed`.

mod report;
mod stages;

use std::time::{Duration, Instant};

use anyhow::bail;

use self::{
    report::Report,
    stages::{Stage, Work},
};
use crate::{
    exec,
    progress::{Step, seconds},
};

/// Longest time a stage may take; the compiler's first run on a slow machine is the longest.
const STAGE_LIMIT: Duration = Duration::from_secs(2400);

/// Arguments of `cargo xtask test`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Leave out what needs a release build: the image, the demo, the other kernels and the fuzz
    /// targets
    #[arg(long)]
    quick: bool,
    /// Only run the tests whose name contains this, and no other check
    filter: Option<String>,
}

/// Runs the stages; whether all passed.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let started = Instant::now();
    let stages = stages::plan(args.quick, args.filter.as_deref())?;
    let mut report = Report::default();
    let mut broken: Option<&str> = None;
    for stage in &stages {
        match broken {
            Some(cause) => report.not_run(stage.name, cause),
            None => report.add(stage.name, carry_out(stage)),
        }
        if stage.needed && report.last_failed() {
            broken = Some(stage.name);
        }
    }
    print!("{report}");
    println!("in {}", seconds(started.elapsed()));
    if args.filter.is_some() && report.passed() + report.failed() == 0 {
        bail!("no test's name contains \"{}\"", args.filter.as_deref().unwrap_or_default());
    }
    println!("{} passed, {} failed", report.passed(), report.failed());
    Ok(report.failed() == 0)
}

/// What became of a stage.
pub(crate) struct Outcome {
    took: Duration,
    /// Tests, where the stage runs tests; else the stage counts as one.
    counts: Counts,
}

/// How many passed and how many failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    passed: usize,
    failed: usize,
}

fn carry_out(stage: &Stage) -> Outcome {
    let started = Instant::now();
    let counts = match &stage.work {
        // A task shows its own steps.
        Work::Task(task) => match task() {
            Ok(()) => Counts { passed: 1, failed: 0 },
            Err(error) => {
                eprintln!("  FAIL {}: {error:#}", stage.name);
                Counts { passed: 0, failed: 1 }
            }
        },
        Work::Program(make) => run_program(stage.name, make, Tests::No),
        Work::Tests(make) => run_program(stage.name, make, Tests::Yes),
    };
    Outcome { took: started.elapsed(), counts }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tests {
    Yes,
    No,
}

fn run_program(
    name: &str,
    make: &dyn Fn() -> anyhow::Result<std::process::Command>,
    tests: Tests,
) -> Counts {
    let step = Step::start(name);
    let finished = make().and_then(|mut command| {
        exec::capture_within(&mut command, STAGE_LIMIT, |line| step.note(line))
    });
    let (success, output) = match finished {
        Ok(finished) => (finished.status.success(), finished.output),
        Err(error) => (false, format!("{error:#}\n")),
    };
    let mut counts = if tests == Tests::Yes {
        counted(&output)
    } else {
        Counts { passed: usize::from(success), failed: 0 }
    };
    if !success {
        // What failed before it could count: a build, say.
        counts.failed = counts.failed.max(1);
        step.failed();
        eprint!("{output}");
    } else if tests == Tests::Yes && counts == Counts::default() {
        // A name that fits no test, or that of a test which was renamed.
        counts.failed = 1;
        step.failed();
        eprintln!("no test ran: none has a name that fits");
    } else if tests == Tests::Yes {
        step.done_with(&format!("{} passed", counts.passed));
    } else {
        step.done();
    }
    counts
}

/// The sum over all lines `test result: ok. 12 passed; 0 failed; …`.
fn counted(output: &str) -> Counts {
    let mut counts = Counts::default();
    for line in output.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        let fields = line.split(['.', ';']).map(str::trim);
        for field in fields {
            match field.split_once(' ') {
                Some((number, "passed")) => counts.passed += number.parse::<usize>().unwrap_or(0),
                Some((number, "failed")) => counts.failed += number.parse::<usize>().unwrap_or(0),
                _ => {}
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_closing_lines_are_summed() {
        let output = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
                      noise\n\
                      test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        assert_eq!(counted(output), Counts { passed: 15, failed: 2 });
    }

    #[test]
    fn a_stage_that_could_not_even_count_has_failed() {
        let counts = run_program(
            "a build that fails",
            &|| Ok(std::process::Command::new("false")),
            Tests::Yes,
        );
        assert_eq!(counts, Counts { passed: 0, failed: 1 });
    }

    #[test]
    fn a_stage_whose_filter_fits_no_test_has_failed() {
        let counts =
            run_program("a filter", &|| Ok(std::process::Command::new("true")), Tests::Yes);
        assert_eq!(counts, Counts { passed: 0, failed: 1 });
    }
}
