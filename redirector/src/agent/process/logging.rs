//! The log on standard error, as text, for the journal, or as JSON.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal, Write},
    panic::{self, PanicHookInfo},
    sync::OnceLock,
    time::Duration,
};

use anyhow::Context as _;
use tracing::error;
use tracing_subscriber::EnvFilter;

use crate::{
    agent::process::{
        journal::{self, JournalFormat},
        log_queue::LogQueue,
    },
    printable::PrintableWriter,
};

/// How long the end of the process waits for the reader of standard error.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// The lines of this process, once its log has started.
static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// Starts the log of this process. `level` is the level of our own messages (other crates log at
/// `warn`), or a whole filter.
///
/// # Errors
/// When `level` is neither, or the log was started before.
pub fn start_logging(
    level: &str,
    json: bool,
    variable: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<()> {
    let filter = filter(level)?;
    let plain = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = !json && !plain && io::stderr().is_terminal();
    let queue = QUEUE.get_or_init(LogQueue::default);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Line { queue, colour })
        // It would report a failed write to standard error, and wait for its reader.
        .log_internal_errors(false);
    let started = if json {
        log.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else if journal::is_stderr(variable) {
        log.event_format(JournalFormat::new()).try_init()
    } else {
        log.with_target(false).with_ansi(colour).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("failed to start the log: {error}"))?;
    queue.start(io::stderr()).context("failed to start the thread of the log")?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Lines of the log that were dropped, since standard error did not take them.
pub(crate) fn dropped_lines() -> u64 {
    QUEUE.get().map_or(0, LogQueue::dropped)
}

/// Waits until the log is written; not for long if nobody reads it.
pub fn flush_log() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_LIMIT);
    }
}

/// Standard error: behind the log, once that has started.
pub struct StandardError;

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match QUEUE.get() {
            Some(queue) => queue.push_always(bytes.to_vec()),
            None => io::stderr().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A line of the log: one call writes it without the control characters of others' texts.
struct Line {
    queue: &'static LogQueue,
    colour: bool,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut line = Vec::with_capacity(bytes.len());
        PrintableWriter::new(&mut line, self.colour).write_all(bytes)?;
        self.queue.push(line);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The usual hook would wait for the reader of standard error, and its thread could not end.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => error!("{panic}\n{backtrace}"),
        _ => error!("{panic}"),
    }
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let remedy = || {
        format!(
            "--log-level `{level}`: use error, warn, info, debug or trace, or a filter such as \
                `redirector::dns=debug`"
        )
    };
    match level {
        "off" | "error" | "warn" | "info" | "debug" | "trace" => {
            Ok(EnvFilter::new(format!("warn,redirector={level}")))
        }
        word if word.contains(['=', ',']) => EnvFilter::try_new(word).with_context(remedy),
        _ => anyhow::bail!(remedy()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_or_a_filter_is_accepted() {
        for level in ["info", "debug", "redirector::dns=debug", "info,redirector::backend=trace"] {
            filter(level).expect(level);
        }
        let refusal = filter("loud").expect_err("no level").to_string();
        assert!(refusal.starts_with("--log-level `loud`: use error"), "{refusal}");
        assert!(filter("a=b=c").is_err());
    }
}
