//! The measured processes: a client that connects in batches, on command, and its server. Each
//! stays on one core.
//!
//! Commands arrive over a pipe, so that clients in different cgroups can take turns within one run.

mod client;
mod command;
mod protocol;
mod server;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddrV4;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

use testbed::{Sandbox, binaries};

use command::Held;

pub(crate) use client::PROHIBITED;
pub use client::measure;
pub(crate) use command::{Batch, Obedience, Operation};
pub(crate) use protocol::{BLOCK, WHICH};
pub use server::{ServeOptions, serve};

/// Priority of the measured processes: other work interrupts them less. Optional.
const NICENESS: i32 = -15;

/// A client or server process.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a client in `sandbox`.
    pub(crate) fn client(sandbox: &Sandbox, core: usize) -> Result<Self> {
        Self::start(sandbox, core, &["measure"])
    }

    /// Starts a server in `sandbox`; returns also the port that it listens on at every address. It
    /// serves one connection at a time.
    pub(crate) fn server(sandbox: &Sandbox, core: usize) -> Result<(Self, u16)> {
        Self::server_of(sandbox, core, 1)
    }

    /// The same with so many threads.
    pub(crate) fn server_of(sandbox: &Sandbox, core: usize, threads: usize) -> Result<(Self, u16)> {
        let threads = format!("--threads={threads}");
        let mut server = Self::start(sandbox, core, &["serve", &threads])?;
        let port = server.line()?.parse().context("failed to read the server's port")?;
        Ok((server, port))
    }

    fn start(sandbox: &Sandbox, core: usize, role: &[&str]) -> Result<Self> {
        let mut command =
            sandbox.command(binaries::find("redirector-bench", "redirector-bench", "bench/src")?);
        command.args(role).stdin(Stdio::piped()).stdout(Stdio::piped());
        pin(&mut command, core);
        let mut child = command.spawn().context("failed to start a process to measure")?;
        let (stdin, stdout) =
            (child.stdin.take().context("no pipe")?, child.stdout.take().context("no pipe")?);
        Ok(Self { child, stdin, stdout: BufReader::new(stdout) })
    }

    /// Runs a batch; returns the nanoseconds per operation.
    pub(crate) fn run(&mut self, batch: Batch) -> Result<f64> {
        writeln!(self.stdin, "{batch}").context("failed to send a batch to a client")?;
        let answer = self.line()?;
        let total: u64 = answer
            .parse()
            .map_err(|_| anyhow::anyhow!("a client failed at `{batch}`: {answer}"))?;
        Ok(total as f64 / f64::from(batch.count))
    }

    /// Opens connections, which stay open until [`Worker::release`].
    pub(crate) fn hold(&mut self, count: u32, target: SocketAddrV4) -> Result<()> {
        self.held(Held::Open(count, target)).map(drop)
    }

    /// How many of the held connections are still open.
    pub(crate) fn alive(&mut self) -> Result<u32> {
        self.held(Held::Count)
    }

    /// Closes the held connections.
    pub(crate) fn release(&mut self, target: SocketAddrV4) -> Result<()> {
        self.held(Held::Close(target)).map(drop)
    }

    fn held(&mut self, command: Held) -> Result<u32> {
        writeln!(self.stdin, "{command}").context("failed to send a command to a client")?;
        let answer = self.line()?;
        answer.parse().map_err(|_| anyhow::anyhow!("a client failed at `{command}`: {answer}"))
    }

    /// Lets the client connect until the server that answers has the address `wanted.octet`; then
    /// [`Worker::obeyed`] returns.
    pub(crate) fn begin(&mut self, wanted: Obedience) -> Result<()> {
        writeln!(self.stdin, "{wanted}").context("failed to send a command to a client")
    }

    /// When the first connect began that had the wanted answer: see [`crate::clock::now_us`].
    pub(crate) fn obeyed(&mut self) -> Result<u64> {
        let answer = self.line()?;
        answer.parse().map_err(|_| anyhow::anyhow!("no connect obeyed: {answer}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("failed to read from a measured process")?;
        ensure!(!line.is_empty(), "a measured process ended");
        Ok(line.trim().to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pins `command` to one core, with a high priority.
pub(crate) fn pin(command: &mut Command, core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            let _ = rustix::process::setpriority_process(None, NICENESS);
            Ok(sched_setaffinity(None, &set)?)
        });
    }
}
