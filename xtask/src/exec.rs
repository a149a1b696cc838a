//! Running other programs: with their output read as it comes, and shown whole only when they fail.

use std::{
    io::{self, BufRead, BufReader},
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, bail};

/// A program that ended: how, and everything it wrote to standard output and standard error, in the order in which it came.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

/// Runs a command to its end, giving each line to `on_line` as it comes.
pub(crate) fn capture(command: &mut Command, mut on_line: impl FnMut(&str)) -> anyhow::Result<Finished> {
    let (reader, writer) = io::pipe().context("failed to make a pipe")?;
    let errors = writer.try_clone().context("failed to duplicate a pipe")?;
    command.stdin(Stdio::null()).stdout(writer).stderr(errors);
    let mut child = command.spawn().with_context(|| format!("failed to start {}", shown(command)))?;
    // The command holds our ends of the pipe: as long as it does, the reader below sees no end.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut output = String::new();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).context("failed to read a program's output")? > 0 {
        let text = String::from_utf8_lossy(&line);
        output.push_str(&text);
        on_line(text.trim_end());
        line.clear();
    }
    let status = child.wait().with_context(|| format!("failed to wait for {}", shown(command)))?;
    Ok(Finished { status, output })
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
        if word.is_empty() || word.contains(char::is_whitespace) { format!("'{word}'") } else { word.into_owned() }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Whether a program of this name is on the PATH.
pub(crate) fn on_path(program: &str) -> bool {
    // Debian keeps some tools where a plain user's PATH does not look.
    let places = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&places).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_reported_with_everything_it_wrote() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), |_| {}).unwrap_err().to_string();
        assert!(error.contains("out\nerr") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_missing_program_is_reported_by_name() {
        let error = format!("{:#}", run(&mut Command::new("no-such-program-of-ours"), |_| {}).unwrap_err());
        assert!(error.contains("failed to start no-such-program-of-ours"), "{error}");
    }
}
