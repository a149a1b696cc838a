//! `testbed-client queries`: queries for A records at a steady rate, each sent once more when no
//! answer arrives in time.
//!
//! Three of four use unconnected sockets, as musl does. One in four uses a connected socket of its
//! own, as glibc and Go do, which receives ICMP errors and then stops. The retry uses another
//! socket, which distinguishes a late answer from a lost one, and a busy machine from a slow
//! server.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, ErrorKind, Read},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt,
};
use serde::{Deserialize, Serialize};

use super::errno::errno_name;
use crate::isolation::sandbox::Sandbox;
use crate::{binaries, process};

/// The load ends when nothing has arrived for this long.
const QUIET_LIMIT: Duration = Duration::from_secs(3);
/// The number of unconnected sockets.
const UNCONNECTED: usize = 8;
/// One query in this many has a connected socket.
const CONNECTED: usize = 4;
/// The most packets that are sent, or read from one socket, in one turn.
const BURST: usize = 64;
/// How long it waits for packets when no query is due.
const TICK: Duration = Duration::from_micros(500);
/// The receive buffer: large, so that this program loses no answer.
const RECEIVE_BUFFER: usize = 8 << 20;
/// The DNS port.
const PORT: u16 = 53;

/// Options of the load.
#[derive(Clone, Debug, clap::Args)]
pub struct DnsLoadOptions {
    /// The resolver
    #[arg(long)]
    pub server: Ipv4Addr,
    /// Queries a second
    #[arg(long)]
    pub rate: u32,
    /// Queries in all; each has an ID of its own
    #[arg(long)]
    pub count: u16,
    /// Milliseconds without an answer after which a query is sent again, once: 5000 in glibc,
    /// 2500 in musl, 2000 in c-ares
    #[arg(long)]
    pub retry_ms: u64,
    /// The names to query, in turns
    #[arg(long = "name", required = true)]
    pub names: Vec<String>,
}

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DnsLoadReport {
    /// Queries that were sent.
    pub sent: u64,
    /// Queries that were sent a second time, since no answer had arrived in time.
    pub retried: u64,
    /// Queries to a closed port: glibc tries the next server, and soon has none left.
    pub refused: u64,
    /// Queries whose first packet was answered only after the retry.
    pub late: u64,
    /// Queries whose first packet was never answered, without the refused ones.
    pub unanswered: u64,
    /// Queries without any answer, without the refused ones.
    pub lost: u64,
    /// Answers by name and code of response: `www.example.test 0`.
    pub answers: BTreeMap<String, u64>,
    /// Answers from another address than the resolver's.
    pub wrong_source: u64,
    /// Packets that could not be sent, by errno.
    pub failed: BTreeMap<String, u64>,
    /// The longest time until the answer to a first packet, in milliseconds.
    pub slowest_ms: u64,
    /// The longest pause of this program, in milliseconds, in which it neither sent nor read.
    pub paused_ms: u64,
    /// Wall clock, in seconds.
    pub seconds: f64,
}

/// One query.
struct Query {
    sent: Instant,
    refused: bool,
    first_answer: Option<Duration>,
    second_answer: bool,
}

impl Query {
    fn is_answered(&self) -> bool {
        self.first_answer.is_some() || self.second_answer
    }
}

struct Sender<'o> {
    options: &'o DnsLoadOptions,
    server: SocketAddr,
    retry: Duration,
    /// The questions as they are sent.
    questions: Vec<Vec<u8>>,
    unconnected: Vec<UdpSocket>,
    /// For retries.
    retry_socket: UdpSocket,
    connected: Vec<(usize, UdpSocket)>,
    queries: Vec<Query>,
    /// The number of queries whose retry is decided, in order.
    retry_checked: usize,
    last_received: Instant,
    report: DnsLoadReport,
}

/// Runs `testbed-client queries`: prints `half` after half of the queries, and the report in
/// the end.
pub(crate) fn run(options: &DnsLoadOptions) -> Result<()> {
    ensure!(
        options.rate > 0 && options.count > 1,
        "the rate must be above 0, and the count above 1"
    );
    let begun = Instant::now();
    let mut load = Sender::new(options)?;
    let (count, mut last) = (usize::from(options.count), begun);
    while load.queries.len() < count || !load.is_over() {
        let due = (begun.elapsed().as_secs_f64() * f64::from(options.rate)) as usize;
        for _ in load.queries.len()..due.min(count).min(load.queries.len() + BURST) {
            load.send_next()?;
            if load.queries.len() == count / 2 {
                println!("half");
            }
        }
        load.retry_due();
        load.receive()?;
        let now = Instant::now();
        load.report.paused_ms = load.report.paused_ms.max(millis(now - last));
        last = now;
    }
    println!("{}", serde_json::to_string(&load.end(begun)).context("failed to write the report")?);
    Ok(())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn socket() -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("failed to bind a socket")?;
    sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
        .context("failed to enlarge the receive buffer")?;
    socket.set_nonblocking(true).context("failed to make a socket non-blocking")?;
    Ok(socket)
}

impl<'o> Sender<'o> {
    fn new(options: &'o DnsLoadOptions) -> Result<Self> {
        Ok(Self {
            options,
            server: (options.server, PORT).into(),
            retry: Duration::from_millis(options.retry_ms),
            questions: options.names.iter().map(|name| question(name)).collect(),
            unconnected: (0..UNCONNECTED).map(|_| socket()).collect::<Result<_>>()?,
            retry_socket: socket()?,
            connected: Vec::new(),
            queries: Vec::new(),
            retry_checked: 0,
            last_received: Instant::now(),
            report: DnsLoadReport::default(),
        })
    }

    /// Sends the next query.
    fn send_next(&mut self) -> Result<()> {
        let number = self.queries.len();
        let packet = self.packet(number);
        self.queries.push(Query {
            sent: Instant::now(),
            refused: false,
            first_answer: None,
            second_answer: false,
        });
        let sent = if number.is_multiple_of(CONNECTED) {
            let socket = socket()?;
            let sent = socket.connect(self.server).and_then(|()| socket.send(&packet));
            self.connected.push((number, socket));
            sent
        } else {
            self.unconnected[number % UNCONNECTED].send_to(&packet, self.server)
        };
        self.count_failure(sent);
        Ok(())
    }

    /// Retries the queries that have waited long enough, a few at a time.
    fn retry_due(&mut self) {
        for _ in 0..BURST {
            let Some(query) = self
                .queries
                .get(self.retry_checked)
                .filter(|query| query.sent.elapsed() >= self.retry)
            else {
                break;
            };
            if !query.is_answered() && !query.refused {
                self.report.retried += 1;
                self.last_received = Instant::now();
                let sent = self.retry_socket.send_to(&self.packet(self.retry_checked), self.server);
                self.count_failure(sent);
            }
            self.retry_checked += 1;
        }
    }

    fn count_failure(&mut self, sent: std::io::Result<usize>) {
        if let Err(error) = sent {
            *self.report.failed.entry(errno_name(&error)).or_default() += 1;
        }
    }

    fn packet(&self, number: usize) -> Vec<u8> {
        let header = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [
            &(number as u16).to_be_bytes()[..],
            &header,
            &self.questions[number % self.questions.len()],
        ]
        .concat()
    }

    /// Waits a moment, and reads what has arrived.
    fn receive(&mut self) -> Result<()> {
        let sockets = self
            .unconnected
            .iter()
            .chain([&self.retry_socket])
            .chain(self.connected.iter().map(|(_, socket)| socket));
        let mut polled: Vec<PollFd<'_>> =
            sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let tick = Timespec::try_from(TICK).context("a time is out of range")?;
        poll(&mut polled, Some(&tick)).context("failed to wait for answers")?;
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        drop(polled);
        let mut packet = [0; 1500];
        for at in (0..=UNCONNECTED).filter(|at| ready[*at]) {
            for _ in 0..BURST {
                let socket = self.unconnected.get(at).unwrap_or(&self.retry_socket);
                let Ok((length, source)) = socket.recv_from(&mut packet) else { break };
                self.on_answer(&packet[..length], source, at == UNCONNECTED);
            }
        }
        let mut open = Vec::new();
        for ((number, socket), ready) in
            std::mem::take(&mut self.connected).into_iter().zip(&ready[UNCONNECTED + 1..])
        {
            match if *ready { socket.recv(&mut packet) } else { Err(ErrorKind::WouldBlock.into()) }
            {
                Ok(length) => self.on_answer(
                    &packet[..length],
                    socket.peer_addr().context("a socket without a peer")?,
                    false,
                ),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    self.report.refused += 1;
                    self.queries[number].refused = true;
                }
                Err(_) => open.push((number, socket)),
            }
        }
        self.connected = open;
        Ok(())
    }

    fn on_answer(&mut self, packet: &[u8], source: SocketAddr, second: bool) {
        self.last_received = Instant::now();
        let [high, low, _, code, ..] = *packet else { return };
        let number = usize::from(u16::from_be_bytes([high, low]));
        let Some(query) = self.queries.get_mut(number) else { return };
        if source != self.server {
            self.report.wrong_source += 1;
        } else if second {
            query.second_answer = true;
        } else if query.first_answer.is_none() {
            query.first_answer = Some(query.sent.elapsed());
        }
        let name = &self.options.names[number % self.options.names.len()];
        *self.report.answers.entry(format!("{name} {}", code & 15)).or_default() += 1;
    }

    /// Whether no more answers are expected.
    fn is_over(&self) -> bool {
        let all = self.queries.iter().all(|query| query.first_answer.is_some() || query.refused);
        all || (self.retry_checked == self.queries.len()
            && self.last_received.elapsed() >= QUIET_LIMIT)
    }

    fn end(mut self, begun: Instant) -> DnsLoadReport {
        let count = |what: &dyn Fn(&Query) -> bool| {
            self.queries.iter().filter(|query| what(query)).count() as u64
        };
        self.report.sent = count(&|_| true);
        self.report.late =
            count(&|query| query.first_answer.is_some_and(|took| took >= self.retry));
        self.report.unanswered = count(&|query| query.first_answer.is_none() && !query.refused);
        self.report.lost = count(&|query| !query.is_answered() && !query.refused);
        self.report.slowest_ms =
            self.queries.iter().filter_map(|query| query.first_answer).max().map_or(0, millis);
        self.report.seconds = begun.elapsed().as_secs_f64();
        self.report
    }
}

/// A name's question, for its A record.
fn question(name: &str) -> Vec<u8> {
    let labels =
        name.split('.').flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()));
    labels.chain([0, 0, 1, 0, 1]).collect()
}

/// A DNS load in a sandbox.
#[derive(Debug)]
pub struct DnsLoad {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl DnsLoad {
    /// Starts it. The calling thread must live until the report is in.
    pub fn start(sandbox: &Sandbox, options: &DnsLoadOptions) -> Result<Self> {
        let mut command = sandbox.command(binaries::client()?);
        command.args([
            "queries",
            "--server",
            &options.server.to_string(),
            "--rate",
            &options.rate.to_string(),
        ]);
        command.args([
            "--count",
            &options.count.to_string(),
            "--retry-ms",
            &options.retry_ms.to_string(),
        ]);
        command.args(options.names.iter().flat_map(|name| ["--name", name]));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start the DNS load")?;
        let output = BufReader::new(child.stdout.take().context("the DNS load has no output")?);
        Ok(Self { child, output })
    }

    /// Waits until half of the queries are sent.
    pub fn wait_half(&mut self) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("failed to read from the DNS load")?;
        ensure!(line == "half\n", "expected `half` from the DNS load, got {line:?}");
        Ok(())
    }

    /// Waits for its end.
    pub fn report(mut self) -> Result<DnsLoadReport> {
        let mut text = String::new();
        self.output.read_to_string(&mut text).context("failed to read the DNS load's report")?;
        let ended = process::wait(&mut self.child, QUIET_LIMIT)?;
        serde_json::from_str(&text)
            .with_context(|| format!("failed to parse the DNS load's report ({ended:?}): {text}"))
    }
}
