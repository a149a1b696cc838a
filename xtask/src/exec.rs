//! Running other programs: with their output read as it comes, and shown whole only when they fail.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A program that ended: how, and everything it wrote to standard output and standard error, in the
/// order in which it came.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

/// Longest time for what has no limit of its own.
const LIMIT: Duration = Duration::from_secs(3600);

/// Runs a command to its end, giving each line to `on_line` as it comes.
pub(crate) fn capture(
    command: &mut Command,
    on_line: impl FnMut(&str),
) -> anyhow::Result<Finished> {
    capture_within(command, LIMIT, on_line)
}

/// As [`capture`]; after `limit` the program and all that it started are killed.
pub(crate) fn capture_within(
    command: &mut Command,
    limit: Duration,
    mut on_line: impl FnMut(&str),
) -> anyhow::Result<Finished> {
    let (reader, writer) = io::pipe().context("failed to make a pipe")?;
    let errors = writer.try_clone().context("failed to duplicate a pipe")?;
    command.stdin(Stdio::null()).stdout(writer).stderr(errors);
    let mut child =
        command.spawn().with_context(|| format!("failed to start {}", shown(command)))?;
    // The command holds our ends of the pipe: as long as it does, the reader below sees no end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (done, ended) = mpsc::channel::<()>();
    let pid = child.id();
    let watchdog = thread::spawn(move || {
        let late = ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
        if late {
            kill_tree(pid);
        }
        late
    });

    let mut output = String::new();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).context("failed to read a program's output")? > 0 {
        let text = String::from_utf8_lossy(&line);
        output.push_str(&text);
        on_line(text.trim_end());
        line.clear();
    }
    // Before the wait: as long as the child is not waited for, its number is nobody else's.
    drop(done);
    if watchdog.join().unwrap_or(false) {
        output.push_str(&format!("killed, since it ran for more than {} s\n", limit.as_secs()));
    }
    let status = child.wait().with_context(|| format!("failed to wait for {}", shown(command)))?;
    Ok(Finished { status, output })
}

/// Kills a process and its descendants. Each is stopped before its children are listed, so that it
/// starts no other.
fn kill_tree(pid: u32) {
    signal(pid, Signal::STOP);
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children: String =
        tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect();
    children.split_whitespace().filter_map(|child| child.parse().ok()).for_each(kill_tree);
    signal(pid, Signal::KILL);
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // One that ended by itself meanwhile needs no signal.
        let _ = kill_process(pid, signal);
    }
}

/// Runs a command that must succeed; its output is in the error when it does not.
pub(crate) fn run(command: &mut Command, on_line: impl FnMut(&str)) -> anyhow::Result<String> {
    let finished = capture(command, on_line)?;
    if !finished.status.success() {
        bail!("{} failed ({}):\n{}", shown(command), finished.status, finished.output.trim_end());
    }
    Ok(finished.output)
}

/// The command as a person would type it; words with blanks are quoted.
pub(crate) fn shown(command: &Command) -> String {
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

/// Whether a program of this name is on the PATH.
pub(crate) fn on_path(program: &str) -> bool {
    // Debian keeps some tools where a plain user's PATH does not look.
    let places = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&places)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_reported_with_everything_it_wrote() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), |_| {})
            .unwrap_err()
            .to_string();
        assert!(error.contains("out\nerr") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed_with_its_children() {
        let limit = Duration::from_millis(300);
        let finished = capture_within(
            Command::new("sh").args(["-c", "echo begun; sh -c 'sleep 60'; echo ended"]),
            limit,
            |_| {},
        )
        .unwrap();
        assert!(!finished.status.success());
        assert!(finished.output.starts_with("begun\nkilled, since"), "{}", finished.output);
    }

    #[test]
    fn a_missing_program_is_reported_by_name() {
        let error =
            format!("{:#}", run(&mut Command::new("no-such-program-of-ours"), |_| {}).unwrap_err());
        assert!(error.contains("failed to start no-such-program-of-ours"), "{error}");
    }
}
