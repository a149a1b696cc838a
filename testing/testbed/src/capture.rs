//! Runs programs whose output is read line by line, and shown as a whole only when they fail.

use std::{
    io::{self, BufRead, BufReader},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::process;

/// A program that ended.
#[derive(Debug)]
pub struct Captured {
    /// The exit status.
    pub status: ExitStatus,
    /// Its standard output and standard error, in the order in which they came.
    pub output: String,
}

/// Longest time of a program that has no limit of its own.
const LIMIT: Duration = Duration::from_secs(3600);

/// Runs a command to its end, and passes each line to `on_line` as it comes.
pub fn capture(command: &mut Command, on_line: impl FnMut(&str)) -> Result<Captured> {
    capture_within(command, LIMIT, on_line)
}

/// As [`capture`]; after `limit` the program and its descendants are killed, and the output ends
/// with a line about it.
pub fn capture_within(
    command: &mut Command,
    limit: Duration,
    mut on_line: impl FnMut(&str),
) -> Result<Captured> {
    let (reader, writer) = io::pipe().context("failed to make a pipe")?;
    let errors = writer.try_clone().context("failed to duplicate a pipe")?;
    command.stdin(Stdio::null()).stdout(writer).stderr(errors);
    let mut child =
        command.spawn().with_context(|| format!("failed to start {}", command_line(command)))?;
    // The command owns copies of the write end, and the reader below waits for the last to close.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    thread::scope(|scope| {
        let waiter = scope.spawn(|| process::wait_or_kill(&mut child, limit));
        let mut output = String::new();
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).context("failed to read a program's output")? > 0
        {
            let text = String::from_utf8_lossy(&line);
            output.push_str(&text);
            on_line(text.trim_end());
            line.clear();
        }
        let (status, killed) = waiter
            .join()
            .map_err(|_| anyhow!("the thread that waits for a program panicked"))??;
        if killed {
            output.push_str(&format!("killed after {} s, its time limit\n", limit.as_secs()));
        }
        Ok(Captured { status, output })
    })
}

/// Runs a command that must succeed; otherwise its output is in the error.
pub fn run(command: &mut Command, on_line: impl FnMut(&str)) -> Result<String> {
    let Captured { status, output } = capture(command, on_line)?;
    if !status.success() {
        bail!("{} failed ({status}):\n{}", command_line(command), output.trim_end());
    }
    Ok(output)
}

/// What a command that must succeed prints on standard output alone.
pub fn stdout(command: Command) -> Result<String> {
    let line = command_line(&command);
    let finished = process::finish(command, LIMIT)?.success();
    finished.map(|finished| finished.stdout).with_context(|| format!("{line} failed"))
}

/// The command as a person would type it; words with blanks are quoted.
pub fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| {
        let word = word.to_string_lossy();
        if word.is_empty() || word.contains(char::is_whitespace) {
            format!("'{word}'")
        } else {
            word.into_owned()
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_reported_with_all_its_output() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), |_| {})
            .unwrap_err()
            .to_string();
        assert!(error.contains("out\nerr") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_program_over_its_limit_is_killed_with_its_children() {
        let limit = Duration::from_millis(300);
        let captured = capture_within(
            Command::new("sh").args(["-c", "echo begun; sh -c 'sleep 60'; echo ended"]),
            limit,
            |_| {},
        )
        .unwrap();
        assert!(!captured.status.success());
        assert!(captured.output.starts_with("begun\nkilled after"), "{}", captured.output);
    }

    #[test]
    fn a_missing_program_is_reported_by_name() {
        let error =
            format!("{:#}", run(&mut Command::new("no-such-program-of-ours"), |_| {}).unwrap_err());
        assert!(error.contains("failed to start no-such-program-of-ours"), "{error}");
    }
}
