//! Progress on standard error: spinners with the latest line on a terminal, otherwise plain lines.

use std::{
    io::{IsTerminal as _, stderr},
    sync::LazyLock,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The spinners of the steps that run now, each on a line of its own.
static SPINNERS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// One named step of a task, from its start to its end.
pub(crate) struct Step {
    name: String,
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Step {
    /// Shows that the step began.
    pub(crate) fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let bar = stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("  {spinner} {prefix} {elapsed:.dim} {wide_msg:.dim}");
            let bar = SPINNERS.add(
                ProgressBar::new_spinner()
                    .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner())),
            );
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if bar.is_none() {
            eprintln!("  ..   {name}");
        }
        Self { name, bar, started: Instant::now() }
    }

    /// Shows the latest line of the step's output, on a terminal only.
    pub(crate) fn note(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(line.to_owned());
        }
    }

    /// Shows that the step is done, and how long it took.
    pub(crate) fn done(self) -> Duration {
        self.end("ok  ", "")
    }

    /// As [`Step::done`], with a result.
    pub(crate) fn done_with(self, result: &str) -> Duration {
        self.end("ok  ", result)
    }

    /// Shows that the step failed.
    pub(crate) fn failed(self) -> Duration {
        self.end("FAIL", "")
    }

    fn end(self, verdict: &str, result: &str) -> Duration {
        let took = self.started.elapsed();
        let Self { name, bar, .. } = self;
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let separator = if result.is_empty() { "" } else { ": " };
        SPINNERS.suspend(|| {
            eprintln!("  {verdict} {name}{separator}{result} ({})", seconds(took));
        });
        took
    }
}

/// A duration in seconds.
pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.2} s") } else { format!("{seconds:.0} s") }
}
