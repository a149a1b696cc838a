//! Queries that are answered in the kernel: round trips beside those of the servers, and the
//! program with the names of a full pool.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use testbed::{packages, process};

use super::{
    program_times,
    servers::{LOCAL, Server, client},
};
use crate::{
    lookup::query,
    packets::{Datapath, EXACT, NameTimes, Process, Setup, WILDCARDS},
    rounds::{Turns, alternate},
    rows::{Goal, Row},
};

/// The address of a resolver that does not run: the program at the egress of `lo` answers for it.
const RESOLVER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), 53);
/// The interface whose program is timed.
const GUEST: &str = "benchguest";
/// A bpf file system for the pins.
const BPFFS: &str = "/run/bench-bpf";
/// The VIP's index of the name that is asked.
const INDEX: u32 = 1;
/// Queries of one measurement.
const QUERIES: u16 = 200;
const LIMIT: Duration = Duration::from_secs(30);

/// How the datapath is attached, in this thread's network namespace.
pub(super) type Attach<'a> = dyn Fn(&Setup) -> Result<Box<dyn Datapath>> + 'a;

/// Starts the product's example.
pub(super) fn start(program: &Path, setup: &Setup) -> Result<Box<dyn Datapath>> {
    let mut command = Command::new(program);
    process::die_with_parent(&mut command);
    Ok(Box::new(Process::start(command, setup)?))
}

/// What is compared with answers in the kernel.
pub(super) struct Peers<'a> {
    pub(super) shim: &'a Server,
    pub(super) unbound: &'a Server,
}

/// Measures in this thread's network namespace, on its core.
pub(super) fn measure(rounds: usize, peers: &Peers<'_>, attach: &Attach<'_>) -> Result<Vec<Row>> {
    let link = format!("link add {GUEST} up type veth peer name benchpeer");
    process::finish(ip(&link)?, LIMIT)?.success()?;
    // The namespaces have a /run of their own.
    std::fs::create_dir_all(BPFFS).context("failed to make a folder for a bpf file system")?;
    rustix::mount::mount("bench", BPFFS, "bpf", rustix::mount::MountFlags::empty(), None)
        .context("failed to mount a bpf file system")?;
    let setup = Setup {
        bpffs: PathBuf::from(BPFFS).join("names"),
        answered: vec![GUEST.to_owned()],
        hosts: vec!["lo".to_owned()],
        name_cgroups: vec![(root_cgroup()?, 0)],
        names: vec![(LOCAL.to_owned(), INDEX)],
        ..Setup::default()
    };
    let mut datapath = attach(&setup)?;
    let mut rows = round_trips(rounds, peers)?;
    eprintln!("publishing {EXACT} names and {WILDCARDS} wildcards");
    rows.extend(publishing(datapath.fill()?));
    let interface = rustix::net::netdevice::name_to_index(client(RESOLVER)?, GUEST)
        .with_context(|| format!("there is no interface {GUEST}"))?;
    rows.extend(program_times::measure(rounds, interface)?);
    Ok(rows)
}

fn ip(arguments: &str) -> Result<Command> {
    let mut command = packages::tool("ip")?;
    command.args(arguments.split_ascii_whitespace());
    Ok(command)
}

/// The root of cgroup2.
fn root_cgroup() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("failed to read mounts")?;
    let mut words = mounts.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let found = words.find(|words| words.get(2) == Some(&"cgroup2"));
    found.map(|words| PathBuf::from(words[1])).context("no cgroup2 is mounted")
}

/// One query at a time; client and servers share a core. A datagram that a socket sends to itself
/// takes the client's own part of a round trip: what is above it is the server's.
fn round_trips(rounds: usize, peers: &Peers<'_>) -> Result<Vec<Row>> {
    let targets = [RESOLVER, peers.shim.address, peers.unbound.address];
    let mut sockets = targets.iter().map(|target| client(*target)).collect::<Result<Vec<_>>>()?;
    let own = client(RESOLVER)?;
    own.connect(own.local_addr()?).context("failed to connect a socket to itself")?;
    sockets.push(own);
    let limit = (rounds * 20, Duration::from_secs(60));
    let times = alternate(sockets.len(), limit, |which| {
        let socket = &sockets[which];
        let began = Instant::now();
        for number in 0..QUERIES {
            socket.send(&query(number, LOCAL)).context("failed to send")?;
            let length = socket.recv(&mut [0; 512]).context("no answer")?;
            ensure!(length > 12, "an answer of {length} octets");
        }
        Ok(began.elapsed().as_nanos() as f64 / f64::from(QUERIES))
    })?;
    let row = |what: &str, which| {
        let what = format!("one query at a time, {what}");
        Row::new(what, "µs", times.microseconds(which), None)
    };
    let ratio = |what: &str, values, goal| {
        Row::new(format!("one query at a time: in the kernel × {what}"), "", values, goal)
    };
    Ok(vec![
        row("in the kernel", 0),
        row("the shim", 1),
        row("unbound", 2),
        row("the client's own part", 3),
        ratio("the shim", times.ratios(0, 1), None),
        ratio("unbound", times.ratios(0, 2), None),
        ratio("the shim, above the client's own part", above(&times, 1), Some(Goal::AtMost(0.2))),
        ratio("unbound, above the client's own part", above(&times, 2), Some(Goal::AtMost(0.25))),
    ])
}

/// The quotients of the times in the kernel and of a server, both without the client's own part.
fn above(times: &Turns, server: usize) -> Vec<f64> {
    let [own, kernel, server] = [3, 0, server].map(|which| times.microseconds(which));
    let quotient = |round: usize| (kernel[round] - own[round]) / (server[round] - own[round]);
    (0..own.len()).map(quotient).collect()
}

fn publishing(times: NameTimes) -> Vec<Row> {
    let milliseconds = times.filled.iter().map(|time| time / 1e3).collect();
    let all = format!("{EXACT} names and {WILDCARDS} wildcards published");
    vec![
        Row::new(all, "ms", milliseconds, Some(Goal::AtMost(500.0))),
        Row::new("one name changed among them", "µs", times.one, Some(Goal::AtMost(100.0))),
    ]
}
