//! `testbed-client storm`: as many connects as the processor can make, each with a check of
//! getpeername. The server runs beside it, on the executor's own loopback.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};

use super::errno::errno_name;
use crate::isolation::sandbox::Sandbox;
use crate::{binaries, process};

/// Connecting threads: enough to keep two cores busy, few enough to leave the server its share.
const THREADS: usize = 3;
/// The most connections that wait to be accepted: with more, the listener's queue of 4096 could
/// overflow on a busy machine, and the kernel would drop connections that the client considers
/// established.
const MAX_UNACCEPTED: u64 = 2048;
/// How long the server may take to accept the last connections on a busy machine.
const ACCEPT_LIMIT: Duration = Duration::from_secs(60);
/// How long the storm may take to end after its input; then it is killed.
const GRACE: Duration = Duration::from_secs(90);

/// What the storm connects to.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct StormOptions {
    /// The virtual address.
    #[arg(long)]
    pub vip: Ipv4Addr,
}

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StormReport {
    /// Connects begun.
    pub attempted: u64,
    /// Connects that succeeded and whose getpeername was the virtual address.
    pub redirected: u64,
    /// Connects that succeeded with another getpeername.
    pub wrong_peer: u64,
    /// Connects that failed, by errno.
    pub failed: BTreeMap<String, u64>,
    /// Connections that the server accepted.
    pub accepted: u64,
    /// Wall clock, in seconds.
    pub seconds: f64,
}

/// Runs `testbed-client storm`: prints the port of its server, connects to the virtual address on
/// that port until its input ends, prints the report.
pub(crate) fn run(options: StormOptions) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("failed to listen")?;
    rustix::net::listen(&listener, 4096).context("failed to make the backlog longer")?;
    let target = SocketAddr::from((
        options.vip,
        listener.local_addr().context("failed to read the port")?.port(),
    ));
    println!("{}", target.port());
    // The caller makes the route for that port now.
    let mut byte = [0];
    std::io::stdin().read_exact(&mut byte).context("failed to wait for the start signal")?;
    let (over, accepted, connected) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let may_connect = || {
        let unaccepted =
            connected.load(Ordering::Relaxed).saturating_sub(accepted.load(Ordering::Relaxed));
        unaccepted < MAX_UNACCEPTED
    };
    let begun = Instant::now();
    let mut report = thread::scope(|scope| {
        scope.spawn(|| accept(&listener, &accepted));
        let workers: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| connect_until_over(target, &over, &connected, may_connect)))
            .collect();
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        over.store(true, Ordering::Relaxed);
        let mut report = StormReport::default();
        for worker in workers {
            report.merge(worker.join().unwrap_or_default());
        }
        let deadline = Instant::now() + ACCEPT_LIMIT;
        while accepted.load(Ordering::Relaxed) < report.redirected + report.wrong_peer
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(1));
        }
        let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        report
    });
    report.accepted = accepted.into_inner();
    report.seconds = begun.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string(&report).context("failed to write the report")?);
    Ok(())
}

fn accept(listener: &TcpListener, accepted: &AtomicU64) {
    while listener.accept().is_ok() {
        accepted.fetch_add(1, Ordering::Relaxed);
    }
}

fn connect_until_over(
    target: SocketAddr,
    over: &AtomicBool,
    connected: &AtomicU64,
    may_connect: impl Fn() -> bool,
) -> StormReport {
    let mut report = StormReport::default();
    while !over.load(Ordering::Relaxed) {
        if !may_connect() {
            thread::sleep(Duration::from_micros(50));
            continue;
        }
        report.attempted += 1;
        let result = connect(target);
        connected.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
        match result {
            Ok(true) => report.redirected += 1,
            Ok(false) => report.wrong_peer += 1,
            Err(error) => *report.failed.entry(errno_name(&error)).or_default() += 1,
        }
    }
    report
}

/// Whether getpeername returns `target`. The socket is closed by a reset (a linger time of 0),
/// which frees the port at once.
fn connect(target: SocketAddr) -> std::io::Result<bool> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    rustix::net::connect(&socket, &target)?;
    let peer = rustix::net::getpeername(&socket)?.map(SocketAddr::try_from);
    Ok(peer.is_some_and(|peer| peer == Ok(target)))
}

impl StormReport {
    fn merge(&mut self, other: Self) {
        self.attempted += other.attempted;
        self.redirected += other.redirected;
        self.wrong_peer += other.wrong_peer;
        for (errno, count) in other.failed {
            *self.failed.entry(errno).or_default() += count;
        }
    }
}

/// A storm in a sandbox.
#[derive(Debug)]
pub struct ConnectStorm {
    child: Child,
    /// The port of its server, on the sandbox's loopback.
    pub port: u16,
}

impl ConnectStorm {
    /// Starts the server; [`ConnectStorm::begin`] starts the connects. The calling thread must
    /// live until the report is in.
    pub fn start(sandbox: &Sandbox, vip: Ipv4Addr) -> Result<Self> {
        let mut command = sandbox.command(binaries::client()?);
        command
            .args(["storm", "--vip", &vip.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("failed to start the storm")?;
        let mut line = String::new();
        let stdout = child.stdout.as_mut().context("the storm has no output")?;
        // One line only: the rest of the output is the report.
        BufReader::with_capacity(1, stdout)
            .read_line(&mut line)
            .context("failed to read the storm's port")?;
        let port = line.trim().parse().with_context(|| format!("not a port: {line}"))?;
        Ok(Self { child, port })
    }

    /// Starts the connects.
    pub fn begin(&mut self) -> Result<()> {
        use std::io::Write;
        self.child
            .stdin
            .as_mut()
            .context("the storm has no input")?
            .write_all(b"!")
            .context("failed to begin the storm")
    }

    /// Ends it and returns its report.
    pub fn report(mut self) -> Result<StormReport> {
        drop(self.child.stdin.take());
        if process::wait(&mut self.child, GRACE)?.is_none() {
            self.child.kill().context("failed to kill the storm")?;
        }
        let output = self.child.wait_with_output().context("failed to wait for the storm")?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("failed to parse the storm's report ({})", output.status))
    }
}
