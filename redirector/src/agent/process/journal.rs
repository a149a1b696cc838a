//! Lines for systemd's journal: a priority in front, and no time, which the journal has itself.

use std::{fmt, fmt::Write as _, os::unix::fs::MetadataExt};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Writer},
    },
    registry::LookupSpan,
};

/// Whether standard error is the journal: JOURNAL_STREAM has its device and inode.
pub(super) fn is_stderr(variable: &dyn Fn(&str) -> Option<String>) -> bool {
    let Some(named) = variable("JOURNAL_STREAM") else { return false };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|file| named == format!("{}:{}", file.dev(), file.ino()))
}

/// Formats events for the journal.
pub(super) struct JournalFormat(Format<Full, ()>);

impl JournalFormat {
    pub(super) fn new() -> Self {
        Self(Format::default().without_time().with_target(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for JournalFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        writer.write_str(&prefixed(text.trim_start(), priority(*event.metadata().level())))
    }
}

/// Each line with its priority: the journal makes an entry of each.
fn prefixed(text: &str, priority: u8) -> String {
    text.lines().fold(String::new(), |mut lines, line| {
        let _ = writeln!(lines, "<{priority}>{line}");
        lines
    })
}

/// The priority of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_priority() {
        let text = prefixed("WARN not reloaded:\nline 1: no\n", priority(Level::WARN));
        assert_eq!(text, "<4>WARN not reloaded:\n<4>line 1: no\n");
        assert_eq!([Level::ERROR, Level::INFO, Level::DEBUG].map(priority), [3, 6, 7]);
    }

    #[test]
    fn another_stream_than_stderr_is_not_the_journal() {
        assert!(!is_stderr(&|_| None));
        assert!(!is_stderr(&|_| Some("0:0".to_owned())));
        let stderr = std::fs::metadata("/proc/self/fd/2").expect("standard error");
        assert!(is_stderr(&|_| Some(format!("{}:{}", stderr.dev(), stderr.ino()))));
    }
}
