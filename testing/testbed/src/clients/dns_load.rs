//! The DNS load: queries for A records at a steady rate, each asked once more when no answer comes
//! in time. `testbed-client queries` runs it inside an executor.
//!
//! Three of four are sent as musl does it, from sockets that are not connected; one in four as
//! glibc and Go do it, from a connected socket of its own, which hears of a closed port (ICMP) and
//! asks no more. The second time each asks from another socket, so that an answer that comes late
//! is told from one that never came, and what a busy machine does to the load from what the servers
//! do.

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

/// The load ends when it has heard nothing for so long.
const PATIENCE: Duration = Duration::from_secs(3);
/// Sockets that are not connected.
const UNCONNECTED: usize = 8;
/// One in so many queries has a connected socket.
const CONNECTED: usize = 4;
/// Packets that are sent, or read of one socket, before others have their turn.
const MOST: usize = 64;
/// How long it waits for packets when nothing is due.
const TICK: Duration = Duration::from_micros(500);
/// Room for what this program is too slow to read: what is lost must be lost elsewhere.
const ROOM: usize = 8 << 20;
/// The DNS port.
const PORT: u16 = 53;

/// What is asked, whom, and how often.
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
    /// Milliseconds without an answer after which it is asked again, once: glibc waits for 5000,
    /// musl for 2500, c-ares for 2000
    #[arg(long)]
    pub retry_ms: u64,
    /// The names to ask for, in turns
    #[arg(long = "name", required = true)]
    pub names: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DnsLoadReport {
    /// Queries that were sent.
    pub sent: u64,
    /// Those that were asked a second time, since no answer had come in time.
    pub again: u64,
    /// Those whose port was closed: glibc asks the next server, and soon has none left.
    pub refused: u64,
    /// Those whose first packet was answered, but not before they were asked a second time.
    pub late: u64,
    /// Those whose first packet nobody ever answered, without the refused ones.
    pub unanswered: u64,
    /// Those that had no answer at all, without the refused ones.
    pub lost: u64,
    /// Answers by name and code of response: `www.example.test 0`.
    pub answers: BTreeMap<String, u64>,
    /// Answers that came from somebody else than the resolver.
    pub strangers: u64,
    /// What could not be sent, by errno.
    pub failed: BTreeMap<String, u64>,
    /// The longest time until a first packet's answer, in milliseconds.
    pub slowest_ms: u64,
    /// The longest time for which this program did not run, in milliseconds: nothing was sent and
    /// nothing read then.
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

struct Load<'o> {
    options: &'o DnsLoadOptions,
    server: SocketAddr,
    retry: Duration,
    /// The questions as they are sent.
    questions: Vec<Vec<u8>>,
    unconnected: Vec<UdpSocket>,
    /// For the second time.
    second: UdpSocket,
    connected: Vec<(usize, UdpSocket)>,
    queries: Vec<Query>,
    /// How many of them were looked at for a second time, in order.
    judged: usize,
    heard: Instant,
    report: DnsLoadReport,
}

/// Runs `testbed-client queries`: prints `half` when half of the queries are sent, and the report in
/// the end.
pub(crate) fn run(options: &DnsLoadOptions) -> Result<()> {
    ensure!(options.rate > 0 && options.count > 1, "there is nothing to send");
    let begun = Instant::now();
    let mut load = Load::new(options)?;
    let (count, mut last) = (usize::from(options.count), begun);
    while load.queries.len() < count || !load.is_over() {
        let due = (begun.elapsed().as_secs_f64() * f64::from(options.rate)) as usize;
        for _ in load.queries.len()..due.min(count).min(load.queries.len() + MOST) {
            load.ask()?;
            if load.queries.len() == count / 2 {
                println!("half");
            }
        }
        load.ask_again();
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
    sockopt::set_socket_recv_buffer_size_force(&socket, ROOM)
        .context("failed to make room for answers")?;
    socket.set_nonblocking(true).context("failed to make a socket non-blocking")?;
    Ok(socket)
}

impl<'o> Load<'o> {
    fn new(options: &'o DnsLoadOptions) -> Result<Self> {
        Ok(Self {
            options,
            server: (options.server, PORT).into(),
            retry: Duration::from_millis(options.retry_ms),
            questions: options.names.iter().map(|name| question(name)).collect(),
            unconnected: (0..UNCONNECTED).map(|_| socket()).collect::<Result<_>>()?,
            second: socket()?,
            connected: Vec::new(),
            queries: Vec::new(),
            judged: 0,
            heard: Instant::now(),
            report: DnsLoadReport::default(),
        })
    }

    /// Sends the next query.
    fn ask(&mut self) -> Result<()> {
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
        self.note(sent);
        Ok(())
    }

    /// Those that have waited for long enough, a few at a time.
    fn ask_again(&mut self) {
        for _ in 0..MOST {
            let Some(query) =
                self.queries.get(self.judged).filter(|query| query.sent.elapsed() >= self.retry)
            else {
                break;
            };
            if !query.is_answered() && !query.refused {
                self.report.again += 1;
                self.heard = Instant::now();
                let sent = self.second.send_to(&self.packet(self.judged), self.server);
                self.note(sent);
            }
            self.judged += 1;
        }
    }

    fn note(&mut self, sent: std::io::Result<usize>) {
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

    /// Waits a moment, and takes what has come.
    fn receive(&mut self) -> Result<()> {
        let sockets = self
            .unconnected
            .iter()
            .chain([&self.second])
            .chain(self.connected.iter().map(|(_, socket)| socket));
        let mut polled: Vec<PollFd<'_>> =
            sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let tick = Timespec::try_from(TICK).context("a time is out of range")?;
        poll(&mut polled, Some(&tick)).context("failed to wait for answers")?;
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        drop(polled);
        let mut packet = [0; 1500];
        for at in (0..=UNCONNECTED).filter(|at| ready[*at]) {
            for _ in 0..MOST {
                let socket = self.unconnected.get(at).unwrap_or(&self.second);
                let Ok((length, source)) = socket.recv_from(&mut packet) else { break };
                self.answered(&packet[..length], source, at == UNCONNECTED);
            }
        }
        let mut open = Vec::new();
        for ((number, socket), ready) in
            std::mem::take(&mut self.connected).into_iter().zip(&ready[UNCONNECTED + 1..])
        {
            match if *ready { socket.recv(&mut packet) } else { Err(ErrorKind::WouldBlock.into()) }
            {
                Ok(length) => self.answered(
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

    fn answered(&mut self, packet: &[u8], source: SocketAddr, second: bool) {
        self.heard = Instant::now();
        let [high, low, _, code, ..] = *packet else { return };
        let number = usize::from(u16::from_be_bytes([high, low]));
        let Some(query) = self.queries.get_mut(number) else { return };
        if source != self.server {
            self.report.strangers += 1;
        } else if second {
            query.second_answer = true;
        } else if query.first_answer.is_none() {
            query.first_answer = Some(query.sent.elapsed());
        }
        let name = &self.options.names[number % self.options.names.len()];
        *self.report.answers.entry(format!("{name} {}", code & 15)).or_default() += 1;
    }

    /// Whether nothing more is to come.
    fn is_over(&self) -> bool {
        let all = self.queries.iter().all(|query| query.first_answer.is_some() || query.refused);
        all || (self.judged == self.queries.len() && self.heard.elapsed() >= PATIENCE)
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

/// A DNS load in a place.
#[derive(Debug)]
pub struct DnsLoad {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl DnsLoad {
    /// Starts asking. The calling thread must live until the report is in.
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
    pub fn half(&mut self) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("failed to read of the DNS load")?;
        ensure!(line == "half\n", "the DNS load said {line:?}");
        Ok(())
    }

    /// Waits for its end.
    pub fn report(mut self) -> Result<DnsLoadReport> {
        let mut text = String::new();
        self.output.read_to_string(&mut text).context("failed to read the DNS load's report")?;
        let ended = process::wait(&mut self.child, PATIENCE)?;
        serde_json::from_str(&text)
            .with_context(|| format!("failed to parse the DNS load's report ({ended:?}): {text}"))
    }
}
