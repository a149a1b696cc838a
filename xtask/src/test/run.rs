//! Runs the phases, each with its background.

use std::{
    collections::HashMap,
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use testbed::capture;

use super::{
    libtest,
    outcome::{Counts, Outcome, TimedTest},
    report::Report,
    stage::{Phase, Stage, Work},
};
use crate::progress::Step;

/// Longest time a stage may take; the compiler's first run on a slow machine is the longest.
const STAGE_LIMIT: Duration = Duration::from_secs(2400);

/// The priority of the background: it uses the processor time that the foreground leaves.
const BACKGROUND_NICENESS: i32 = 10;

/// Runs every stage whose needs passed.
pub(super) fn run(phases: &[Phase]) -> Report {
    let outcomes = Outcomes::default();
    for phase in phases {
        thread::scope(|scope| {
            scope.spawn(|| {
                // For this thread and the programs it starts; without it they only compete more.
                let _ = rustix::process::setpriority_process(None, BACKGROUND_NICENESS);
                run_lane(&phase.background, &outcomes);
            });
            run_lane(&phase.front, &outcomes);
        });
    }
    let mut report = Report::default();
    let mut outcomes = outcomes.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    for stage in phases.iter().flat_map(Phase::stages) {
        if let Some(outcome) = outcomes.remove(stage.name) {
            report.add(stage.name, outcome);
        }
    }
    report
}

/// The outcomes so far, by the stages' names.
#[derive(Default)]
struct Outcomes(Mutex<HashMap<&'static str, Outcome>>);

impl Outcomes {
    fn add(&self, name: &'static str, outcome: Outcome) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, outcome);
    }

    fn passed(&self, name: &str) -> bool {
        let outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.get(name).is_some_and(Outcome::passed)
    }
}

fn run_lane(stages: &[Stage], outcomes: &Outcomes) {
    for stage in stages {
        let outcome = match stage.needs.iter().find(|needed| !outcomes.passed(needed)) {
            Some(needed) => Outcome::Blocked { by: needed },
            None => run_stage(stage),
        };
        outcomes.add(stage.name, outcome);
    }
}

fn run_stage(stage: &Stage) -> Outcome {
    let started = Instant::now();
    let (counts, tests) = match &stage.work {
        Work::Task(task) => match task() {
            Ok(()) => (Counts::ONE_PASSED, Vec::new()),
            Err(error) => {
                eprintln!("  FAIL {}: {error:#}", stage.name);
                (Counts::ONE_FAILED, Vec::new())
            }
        },
        Work::Program(make) => (run_program(stage.name, make), Vec::new()),
        Work::Tests(make) => run_tests(stage.name, make),
        Work::NotChecked(reason) => {
            eprintln!("  --   {}: not checked: {reason}", stage.name);
            return Outcome::NotChecked { reason: reason.clone() };
        }
    };
    Outcome::Ran { took: started.elapsed(), counts, tests }
}

fn run_program(name: &str, make: &dyn Fn() -> anyhow::Result<Command>) -> Counts {
    let step = Step::start(name);
    let (success, output) = finish(&step, make);
    if success {
        step.done();
        Counts::ONE_PASSED
    } else {
        step.failed();
        eprint!("{output}");
        Counts::ONE_FAILED
    }
}

fn run_tests(name: &str, make: &dyn Fn() -> anyhow::Result<Command>) -> (Counts, Vec<TimedTest>) {
    let step = Step::start(name);
    let (success, output) = finish(&step, make);
    let mut counts = libtest::count(&output);
    if !success {
        // A failure before any test ran, such as of the build.
        counts.failed = counts.failed.max(1);
        step.failed();
        eprint!("{output}");
    } else if counts.is_empty() {
        // A filter that matches no test, or the name of a test that was renamed.
        counts = Counts::ONE_FAILED;
        step.failed();
        eprintln!("no test ran: no test has a name that matches");
    } else {
        step.done_with(&format!("{} passed", counts.passed));
    }
    (counts, libtest::times(&output))
}

/// Whether the program succeeded, and all it printed.
fn finish(step: &Step, make: &dyn Fn() -> anyhow::Result<Command>) -> (bool, String) {
    let finished = make().and_then(|mut command| {
        capture::capture_within(&mut command, STAGE_LIMIT, |line| step.note(line))
    });
    match finished {
        Ok(finished) => (finished.status.success(), finished.output),
        Err(error) => (false, format!("{error:#}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &'static str, program: &'static str) -> Stage {
        Stage::program(name, move || Ok(Command::new(program)))
    }

    #[test]
    fn a_stage_without_test_counts_has_failed() {
        let (counts, _) = run_tests("a build that fails", &|| Ok(Command::new("false")));
        assert_eq!(counts, Counts { passed: 0, failed: 1 });
    }

    #[test]
    fn a_stage_whose_filter_matches_no_test_has_failed() {
        let (counts, _) = run_tests("a filter", &|| Ok(Command::new("true")));
        assert_eq!(counts, Counts { passed: 0, failed: 1 });
    }

    #[test]
    fn a_stage_is_blocked_when_one_that_it_needs_failed() {
        let phases = [
            Phase {
                front: vec![program("fine", "true")],
                background: vec![program("bad", "false")],
            },
            Phase::sequence(vec![
                program("needs bad", "true").after("bad"),
                program("needs fine", "true").after("fine"),
            ]),
        ];
        let report = run(&phases);
        assert_eq!(report.counts(), Counts { passed: 2, failed: 2 });
        assert!(report.to_string().contains("not run, since bad failed"), "{report}");
    }

    #[test]
    fn unchecked_stages_are_named_and_not_counted() {
        let report =
            run(&[Phase::sequence(vec![Stage::not_checked("advisories", "no list".to_owned())])]);
        assert_eq!(report.counts(), Counts::default());
        assert!(report.to_string().contains("not checked: no list"), "{report}");
    }
}
