//! The transcript: it shows each command exactly as it was run, and the result of each check.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use testbed::{Sandbox, interrupted, process::Finished};

/// Lines of output that are shown of one command.
const SHOWN: usize = 12;
/// Longest line of output that is shown.
const WIDTH: usize = 130;
/// Longest time that one command may take.
const LIMIT: Duration = Duration::from_secs(60);

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const PROMPT: Style = AnsiColor::Cyan.on_default();

/// The result of one step.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// Its title.
    pub(super) title: String,
    /// Its duration.
    pub(super) took: Duration,
    /// Failed checks; empty for a step that passed.
    pub(super) failures: Vec<String>,
}

/// The transcript of one demo.
#[derive(Debug)]
pub(super) struct Transcript {
    colour: bool,
    records: Vec<Record>,
}

impl Transcript {
    /// On standard output; in colour on a terminal, unless NO_COLOR is set.
    pub(super) fn new() -> Self {
        let colour = std::io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour, records: Vec::new() }
    }

    /// A plain line.
    pub(super) fn line(&self, text: impl Display) {
        // A closed pipe (`| head`) is no failure of the demo.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// A heading.
    pub(super) fn heading(&self, text: &str) {
        self.line(format!("\n{}\n", self.paint(BOLD, text)));
    }

    /// A dimmed line.
    pub(super) fn dimmed(&self, text: &str) {
        self.line(self.paint(DIM, text));
    }

    /// Runs one part of the preparations, and shows its result and duration.
    pub(super) fn prepare<T>(&self, what: &str, part: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        match part() {
            Ok(made) => {
                self.line(format!(
                    "  {} {what:<86} {}",
                    self.paint(GOOD, "✓"),
                    self.paint(DIM, &seconds(started.elapsed()))
                ));
                Ok(made)
            }
            Err(error) => {
                self.line(format!("  {} {what}", self.paint(BAD, "✗")));
                Err(error)
            }
        }
    }

    /// Plays one step. It fails when a check fails, or when `play` returns an error.
    pub(super) fn step(&mut self, title: &str, play: impl FnOnce(&mut StepLog<'_>) -> Result<()>) {
        let number = self.records.len() + 1;
        self.line(format!("\n{}", self.paint(BOLD, &format!("{number:>2}  {title}"))));
        let started = Instant::now();
        let mut step = StepLog { transcript: self, failures: Vec::new(), checks: 0 };
        if let Err(error) = play(&mut step) {
            wait_if_interrupted();
            step.fail(format!("{error:#}"));
        } else if step.checks == 0 {
            step.fail("the step checked nothing".to_owned());
        }
        let failures = step.failures;
        let took = started.elapsed();
        self.line(format!("    {}", self.paint(DIM, &seconds(took))));
        self.records.push(Record { title: title.to_owned(), took, failures });
    }

    /// Records a step that is not played.
    pub(super) fn skip(&mut self, title: &str, why: &str) {
        self.records.push(Record {
            title: title.to_owned(),
            took: Duration::ZERO,
            failures: vec![format!("not played: {why}")],
        });
    }

    /// Every step with its result and duration.
    pub(super) fn summary(&self, closing: &[String]) {
        self.heading("Summary");
        for (number, record) in self.records.iter().enumerate() {
            let mark = if record.failures.is_empty() {
                self.paint(GOOD, "✓")
            } else {
                self.paint(BAD, "✗")
            };
            let took = self.paint(DIM, &seconds(record.took));
            self.line(format!("  {mark} {:>2}  {:<82} {took}", number + 1, record.title));
            for failure in &record.failures {
                self.line(format!(
                    "        {}",
                    self.paint(BAD, failure.lines().next().unwrap_or_default())
                ));
            }
        }
        self.line("");
        for text in closing {
            self.line(format!("  {text}"));
        }
    }

    /// The steps so far.
    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// Prompt types a command.
#[derive(Clone, Copy, Debug)]
pub(super) enum Prompt {
    /// A job.
    Executor,
    /// A workload that no cgroup program sees: the job's network, not its cgroup.
    Guest,
    /// The operator of the node.
    Node,
    /// The customer's staff.
    Customer,
}

impl Prompt {
    fn text(self) -> &'static str {
        match self {
            Self::Executor => "executor$",
            Self::Guest => "guest$",
            Self::Node => "node#",
            Self::Customer => "customer#",
        }
    }
}

/// A step that is being played.
pub(super) struct StepLog<'t> {
    transcript: &'t Transcript,
    failures: Vec<String>,
    checks: usize,
}

impl StepLog<'_> {
    /// Shows a command, runs it in `sandbox` by `sh -c`, and shows its output.
    pub(super) fn run(&self, prompt: Prompt, sandbox: &Sandbox, command: &str) -> Result<Finished> {
        self.command(prompt, command);
        let done = sandbox.run(command, LIMIT)?;
        self.output(&done.text());
        Ok(done)
    }

    /// Shows a command that is run by other means than a shell.
    pub(super) fn command(&self, prompt: Prompt, command: &str) {
        self.transcript
            .line(format!("    {} {command}", self.transcript.paint(PROMPT, prompt.text())));
    }

    /// Shows the output of a command.
    pub(super) fn output(&self, text: &str) {
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let hidden = lines.len().saturating_sub(SHOWN);
        for line in lines.iter().take(SHOWN) {
            let line: String = line.chars().take(WIDTH).collect();
            self.transcript.dimmed(&format!("      {line}"));
        }
        if hidden > 0 {
            self.transcript.dimmed(&format!("      … {hidden} more lines"));
        }
    }

    /// Shows a remark.
    pub(super) fn note(&self, text: &str) {
        self.transcript.dimmed(&format!("    {text}"));
    }

    /// Shows whether a claim holds; the step fails if not.
    pub(super) fn check(&mut self, holds: bool, claim: &str) {
        self.checks += 1;
        if holds {
            self.transcript.line(format!("    {} {claim}", self.transcript.paint(GOOD, "✓")));
        } else {
            wait_if_interrupted();
            self.fail(format!("failed: {claim}"));
        }
    }

    fn fail(&mut self, what: String) {
        self.transcript.line(format!("    {} {what}", self.transcript.paint(BAD, "✗")));
        self.failures.push(what);
    }
}

/// Waits while a signal takes the rig down: failures from then on mean nothing, and the signal's
/// thread ends the process.
fn wait_if_interrupted() {
    std::thread::sleep(Duration::from_millis(100));
    while interrupted() {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A duration as the transcript writes it.
pub(super) fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        short if short < 0.095 => format!("{:.0} ms", short * 1000.0),
        long => format!("{long:.1} s"),
    }
}
