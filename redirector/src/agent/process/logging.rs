//! The log on standard error, as text, for the journal, or as JSON.

use std::io::{self, IsTerminal, Write};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::agent::process::journal::{self, JournalFormat};

use crate::printable::PrintableWriter;

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
    let writer = move || PrintableStderr { colour };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        // It would report a failed write to the same standard error, and panic as that fails, too.
        .log_internal_errors(false);
    let started = if json {
        log.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else if journal::is_stderr(variable) {
        log.event_format(JournalFormat::new()).try_init()
    } else {
        log.with_target(false).with_ansi(colour).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("failed to start the log: {error}"))
}

/// Standard error without the control characters of others' texts.
struct PrintableStderr {
    colour: bool,
}

impl Write for PrintableStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        PrintableWriter::new(&mut io::stderr(), self.colour).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
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
