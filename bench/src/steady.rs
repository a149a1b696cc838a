//! A client that connects at a steady rate, whatever happens, and reports each attempt.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    path::PathBuf,
    process::Child,
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use testbed::{Sandbox, binaries, process};

use crate::{clock, lookup, worker::WHICH};

/// Whom a client connects to, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where to connect to; only its port counts if names are looked up
    #[arg(long)]
    pub target: SocketAddrV4,
    /// The resolver to ask before each connect
    #[arg(long, requires = "name")]
    pub resolver: Option<SocketAddrV4>,
    /// The name to ask for
    #[arg(long)]
    pub name: Option<String>,
    /// Try every address, as curl does: each but the last gets half of the remaining time
    #[arg(long)]
    pub every_address: bool,
    /// Connects a second
    #[arg(long)]
    pub rate: u32,
    /// For how many seconds
    #[arg(long)]
    pub seconds: f64,
    /// How long a look-up or a connect may take, in seconds
    #[arg(long, default_value_t = 6.0)]
    pub patience: f64,
    /// The file for the attempts, as JSON
    #[arg(long)]
    pub output: PathBuf,
}

/// One attempt: look-up, connect, and a byte each way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// When it began: see [`clock::now_us`].
    pub(crate) at_us: u64,
    pub(crate) took_us: u64,
    /// Why it failed, if it did.
    pub(crate) error: Option<String>,
}

impl Attempt {
    /// An attempt of a client of the same machine takes longer only if something is wrong.
    const USUAL_US: u64 = 250_000;

    pub(crate) fn failed(&self) -> bool {
        self.error.is_some()
    }

    /// Whether it succeeded late.
    pub(crate) fn delayed(&self) -> bool {
        !self.failed() && self.took_us > Self::USUAL_US
    }
}

/// `redirector-bench steady`: connects, and writes the attempts.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.rate > 0, "the rate must be above zero");
    let (sender, attempts) = channel();
    let began = Instant::now();
    let count = (f64::from(options.rate) * options.seconds) as u32;
    for number in 0..count {
        let due = Duration::from_secs_f64(f64::from(number) / f64::from(options.rate));
        thread::sleep(due.saturating_sub(began.elapsed()));
        let (sender, options) = (sender.clone(), options.clone());
        // An attempt that hangs must not delay the next one.
        thread::Builder::new()
            .stack_size(64 << 10)
            .spawn(move || sender.send(attempt(&options)))
            .context("failed to start a thread")?;
    }
    drop(sender);
    let attempts: Vec<Attempt> = attempts.iter().collect();
    fs::write(&options.output, serde_json::to_vec(&attempts)?)
        .with_context(|| format!("failed to write {}", options.output.display()))
}

fn attempt(options: &Options) -> Attempt {
    let at_us = clock::now_us();
    let error = reach(options).err().map(|error| format!("{error:#}"));
    Attempt { at_us, took_us: clock::now_us() - at_us, error }
}

fn reach(options: &Options) -> Result<()> {
    let patience = Duration::from_secs_f64(options.patience);
    let deadline = Instant::now() + patience;
    let mut addresses = match (&options.resolver, &options.name) {
        (Some(resolver), Some(name)) => {
            lookup::addresses(*resolver, name, patience).context("look-up")?
        }
        _ => vec![*options.target.ip()],
    };
    if !options.every_address {
        addresses.truncate(1);
    }
    let mut result = Err(anyhow::anyhow!("the name has no address"));
    for (number, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = if number + 1 < addresses.len() { left / 2 } else { left };
        result = exchange(*address, options.target.port(), limit);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// A connect, and a byte each way: a proxy accepts before it knows whether it reaches the server.
fn exchange(address: Ipv4Addr, port: u16, limit: Duration) -> Result<()> {
    ensure!(!limit.is_zero(), "no time is left");
    let began = Instant::now();
    let mut stream =
        TcpStream::connect_timeout(&(address, port).into(), limit).context("connect")?;
    let left = limit.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left)).context("setsockopt")?;
    stream.write_all(&[WHICH]).context("send")?;
    let mut octet = [0];
    match stream.read(&mut octet).context("recv")? {
        1 => Ok(()),
        _ => bail!("the connection was closed without an answer"),
    }
}

/// The client as a process in a sandbox.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    output: PathBuf,
    limit: Duration,
}

impl Process {
    /// Starts connecting from `sandbox`. The calling thread must live until it has ended.
    pub(crate) fn start(sandbox: &Sandbox, options: &Options) -> Result<Self> {
        let program = binaries::find("redirector-bench", "redirector-bench", "bench/src")?;
        let mut command = sandbox.command(program);
        command.arg("steady");
        command.arg("--target").arg(options.target.to_string());
        if let (Some(resolver), Some(name)) = (&options.resolver, &options.name) {
            command.arg("--resolver").arg(resolver.to_string()).arg("--name").arg(name);
        }
        if options.every_address {
            command.arg("--every-address");
        }
        command.arg("--rate").arg(options.rate.to_string());
        command.arg("--seconds").arg(options.seconds.to_string());
        command.arg("--patience").arg(options.patience.to_string());
        command.arg("--output").arg(&options.output);
        let child = command.spawn().context("failed to start a client")?;
        // A busy machine may start threads late.
        let limit = Duration::from_secs_f64(options.seconds + 2.0 * options.patience + 30.0);
        Ok(Self { child, output: options.output.clone(), limit })
    }

    /// Waits for its end; returns its attempts in order.
    pub(crate) fn attempts(mut self) -> Result<Vec<Attempt>> {
        let status = process::wait(&mut self.child, self.limit)?;
        if status.is_none() {
            self.child.kill().context("failed to kill a client")?;
        }
        let status = status.with_context(|| format!("a client ran beyond {:?}", self.limit))?;
        ensure!(status.success(), "a client failed: {status}");
        let json = fs::read(&self.output)
            .with_context(|| format!("failed to read {}", self.output.display()))?;
        let mut attempts: Vec<Attempt> =
            serde_json::from_slice(&json).context("failed to read a client's attempts")?;
        attempts.sort_by_key(|attempt| attempt.at_us);
        Ok(attempts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_failed_or_delayed_but_not_both() {
        let attempt = |took_us, error: Option<&str>| Attempt {
            at_us: 0,
            took_us,
            error: error.map(str::to_owned),
        };
        assert!(attempt(3_000_000, None).delayed() && !attempt(3_000_000, None).failed());
        let failed = attempt(3_000_000, Some("connect"));
        assert!(failed.failed() && !failed.delayed());
        assert!(!attempt(200, None).delayed());
    }
}
