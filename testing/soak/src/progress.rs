//! Progress on standard error: a bar on a terminal, otherwise a line for each step.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of one soak.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows that a soak of this length begins.
    pub(crate) fn start(title: &str, length: Duration) -> Self {
        if !std::io::stderr().is_terminal() {
            eprintln!("soak: {title}, {} s", length.as_secs());
            return Self { bar: None };
        }
        let style =
            ProgressStyle::with_template("  {prefix} [{bar:30}] {pos}/{len} s  {wide_msg:.dim}");
        let bar = ProgressBar::new(length.as_secs())
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(title.to_owned());
        Self { bar: Some(bar) }
    }

    /// The time and the number of operations so far.
    pub(crate) fn tick(&self, elapsed: Duration) {
        if let Some(bar) = &self.bar {
            bar.set_position(elapsed.as_secs());
        }
    }

    /// What happens.
    pub(crate) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => eprintln!("soak: {text}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
