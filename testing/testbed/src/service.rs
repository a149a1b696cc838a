//! A server that runs while its handle lives, with a log that errors can quote.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process;

/// Lines of a log that an error quotes.
const TAIL: usize = 12;

/// A child process with its output in a file. Killed when dropped.
#[derive(Debug)]
pub struct Service {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Service {
    /// Starts `command`, its output appended to `log`. It is spawned from a lasting thread, so any
    /// thread may call this.
    pub fn start(name: &str, log: &Path, mut command: Command) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("failed to open {}", log.display()))?;
        let copy = file.try_clone().context("failed to copy a log's descriptor")?;
        command.stdin(Stdio::null()).stdout(file).stderr(copy);
        let child =
            process::spawn_lasting(command).with_context(|| format!("failed to start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), ended: None })
    }

    /// Waits until `ready` returns true. When the server ends first or `limit` passes, the error
    /// quotes the end of its log.
    pub fn wait_ready(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if ready()? {
                return Ok(());
            }
            if let Some(status) = self.ended()? {
                bail!(
                    "{} ended before it was ready ({status}); its log {} ends with:\n{}",
                    self.name,
                    self.log.display(),
                    self.tail()
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "{} was not ready after {limit:.1?}; its log {} ends with:\n{}",
                    self.name,
                    self.log.display(),
                    self.tail()
                );
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// The exit status; `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self
                .child
                .try_wait()
                .with_context(|| format!("failed to wait for {}", self.name))?;
        }
        Ok(self.ended)
    }

    /// Sends `signal`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("a child without a pid")?;
        kill_process(pid, signal)
            .with_context(|| format!("failed to send {signal:?} to {}", self.name))
    }

    /// Sends SIGTERM and waits at most `limit`. Returns how it ended, or an error with the end of
    /// its log.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        if self.ended()?.is_none() {
            self.signal(Signal::TERM)?;
            self.ended = process::wait(&mut self.child, limit)?;
        }
        match self.ended {
            Some(status) => Ok(status),
            None => bail!(
                "{} was still running {limit:.1?} after SIGTERM; its log ends with:\n{}",
                self.name,
                self.tail()
            ),
        }
    }

    /// Sends SIGKILL, and waits until the process has ended.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended()?.is_none() {
            self.child.kill().with_context(|| format!("failed to kill {}", self.name))?;
            self.ended = Some(
                self.child.wait().with_context(|| format!("failed to wait for {}", self.name))?,
            );
        }
        Ok(())
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The removal of the rig's cgroup kills it in any case.
        let _ = self.kill();
    }
}
