//! A stage of the tests: what it does and what it needs.

use std::process::Command;

/// Makes the command of a stage when its turn comes.
pub(super) type MakeCommand = Box<dyn Fn() -> anyhow::Result<Command> + Sync>;

/// A stage of the tests.
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) work: Work,
    /// The stages that must have passed before; each comes earlier in the same lane or is in an
    /// earlier phase.
    pub(super) needs: Vec<&'static str>,
}

/// What a stage does.
pub(super) enum Work {
    /// A task of ours, which shows its own progress.
    Task(fn() -> anyhow::Result<()>),
    /// A program whose exit code is the result.
    Program(MakeCommand),
    /// A program that runs tests and counts them.
    Tests(MakeCommand),
    /// Nothing, for this reason.
    NotChecked(String),
}

impl Stage {
    pub(super) fn task(name: &'static str, task: fn() -> anyhow::Result<()>) -> Self {
        Self::new(name, Work::Task(task))
    }

    pub(super) fn program(
        name: &'static str,
        make: impl Fn() -> anyhow::Result<Command> + Sync + 'static,
    ) -> Self {
        Self::new(name, Work::Program(Box::new(make)))
    }

    pub(super) fn tests(
        name: &'static str,
        make: impl Fn() -> anyhow::Result<Command> + Sync + 'static,
    ) -> Self {
        Self::new(name, Work::Tests(Box::new(make)))
    }

    pub(super) fn not_checked(name: &'static str, reason: String) -> Self {
        Self::new(name, Work::NotChecked(reason))
    }

    fn new(name: &'static str, work: Work) -> Self {
        Self { name, work, needs: Vec::new() }
    }

    /// The same stage, to be run only if the named one passed.
    pub(super) fn after(mut self, needed: &'static str) -> Self {
        self.needs.push(needed);
        self
    }
}

/// Stages of which some run in the background of others. A phase ends when all of them have.
#[derive(Default)]
pub(super) struct Phase {
    /// One after the other.
    pub(super) front: Vec<Stage>,
    /// One after the other, beside the foreground and at a lower priority: they fill the time in
    /// which a test waits and the compiler has work for one core only.
    pub(super) background: Vec<Stage>,
}

impl Phase {
    /// A phase without a background.
    pub(super) fn sequence(front: Vec<Stage>) -> Self {
        Self { front, background: Vec::new() }
    }

    pub(super) fn stages_mut(&mut self) -> impl Iterator<Item = &mut Stage> {
        self.front.iter_mut().chain(&mut self.background)
    }

    /// All stages, the foreground first.
    pub(super) fn stages(&self) -> impl Iterator<Item = &Stage> {
        self.front.iter().chain(&self.background)
    }
}
