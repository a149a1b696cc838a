//! A shell at the other end of a serial line.
//!
//! It takes one command a line, and answers with the command's output and a line `@@` with its exit
//! status.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::Finished;

/// The first line of a shell that is ready.
const READY: &str = "@@ready";
/// How long one read may wait.
const TICK: Duration = Duration::from_millis(200);

/// The shell, for one command at a time.
#[derive(Debug)]
pub struct SerialShell {
    line: Mutex<BufReader<UnixStream>>,
}

impl SerialShell {
    /// Connects to qemu's end of the line.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("failed to connect to {}", path.display()))?;
        stream.set_read_timeout(Some(TICK)).context("failed to set a time-out")?;
        Ok(Self { line: Mutex::new(BufReader::new(stream)) })
    }

    /// Waits until the shell takes commands.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        self.read_until(Instant::now() + limit, |line| line == READY).map(drop)
    }

    /// Runs a command; its standard error comes with its output.
    pub fn run(&self, command: &str, limit: Duration) -> Result<Finished> {
        ensure!(!command.contains('\n'), "a command for a serial line has one line");
        let started = Instant::now();
        self.line
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut()
            .write_all(format!("{command}\n").as_bytes())
            .context("failed to write to a serial line")?;
        let is_end = |line: &str| {
            line.strip_prefix("@@").is_some_and(|status| status.parse::<i32>().is_ok())
        };
        let (output, end) = self.read_until(started + limit, is_end)?;
        let code: i32 = end.trim_start_matches("@@").parse().context("not an exit status")?;
        // The line break before the mark is not the command's.
        let stdout = output.strip_suffix('\n').unwrap_or(&output).to_owned();
        Ok(Finished {
            status: ExitStatus::from_raw(code << 8),
            stdout,
            stderr: String::new(),
            took: started.elapsed(),
        })
    }

    /// The lines before one that `is_last` accepts, and that one.
    fn read_until(
        &self,
        deadline: Instant,
        is_last: impl Fn(&str) -> bool,
    ) -> Result<(String, String)> {
        let mut reader = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut output, mut line) = (String::new(), Vec::new());
        while Instant::now() < deadline {
            match reader.read_until(b'\n', &mut line) {
                Ok(0) => bail!("the serial line ended after: {output}"),
                Ok(_) if line.ends_with(b"\n") => {}
                Ok(_) => continue,
                // What has arrived so far stays in `line`.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    continue;
                }
                Err(error) => return Err(error).context("failed to read a serial line"),
            }
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            if is_last(&text) {
                return Ok((output, text));
            }
            output.push_str(&text);
            output.push('\n');
            line.clear();
        }
        bail!("no end of a command on the serial line in time; its output: {output}")
    }
}
