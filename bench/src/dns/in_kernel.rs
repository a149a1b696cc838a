//! Queries that are answered in the kernel: round trips beside those of the servers, and the time
//! of the program by kind of name, with the names of a full pool.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use testbed::{packages, process};

use super::servers::{LOCAL, Server, client, query};
use crate::{
    bpf::{self, Packet},
    guests::frames,
    packets::{Datapath, EXACT, NameTimes, Process, Setup, WILDCARDS, exact_name, wildcard_suffix},
    rounds::alternate,
    rows::{Goal, Row},
    statistics::Spread,
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
/// Names of one measurement, each in a run of its own: a run changes the packet.
const NAMES: u32 = 500;
/// Direction of the TCX hook (`enum bpf_attach_type`).
const TCX_INGRESS: u32 = 46;
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
    rows.extend(program_times(rounds)?);
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

/// One query at a time; client and server share a core, so the quotient of times is the quotient of
/// answers per core.
fn round_trips(rounds: usize, peers: &Peers<'_>) -> Result<Vec<Row>> {
    let targets = [RESOLVER, peers.shim.address, peers.unbound.address];
    let sockets = targets.iter().map(|target| client(*target)).collect::<Result<Vec<_>>>()?;
    let limit = (rounds * 20, Duration::from_secs(60));
    let times = alternate(targets.len(), limit, |which| {
        let socket = &sockets[which];
        let began = Instant::now();
        for number in 0..QUERIES {
            socket.send(&query(number, LOCAL)).context("failed to send")?;
            let length = socket.recv(&mut [0; 512]).context("no answer")?;
            ensure!(length > 12, "an answer of {length} octets");
        }
        Ok(began.elapsed().as_nanos() as f64 / f64::from(QUERIES))
    })?;
    let row = |what: &str, values, goal| {
        Row::new(format!("one query at a time: {what}"), "", values, goal)
    };
    Ok(vec![
        Row::new("one query at a time, in the kernel", "µs", times.microseconds(0), None),
        Row::new("one query at a time, the shim", "µs", times.microseconds(1), None),
        Row::new("one query at a time, unbound", "µs", times.microseconds(2), None),
        row("in the kernel × the shim", times.ratios(0, 1), Some(Goal::AtMost(0.2))),
        row(
            "unbound × in the kernel (answers per core)",
            times.ratios(2, 0),
            Some(Goal::AtLeast(4.0)),
        ),
    ])
}

fn publishing(times: NameTimes) -> Vec<Row> {
    let milliseconds = times.filled.iter().map(|time| time / 1e3).collect();
    let all = format!("{EXACT} names and {WILDCARDS} wildcards published");
    vec![
        Row::new(all, "ms", milliseconds, Some(Goal::AtMost(500.0))),
        Row::new("one name changed among them", "µs", times.one, Some(Goal::AtMost(100.0))),
    ]
}

/// The program's time for a query above that of an empty program, by kind of name.
fn program_times(rounds: usize) -> Result<Vec<Row>> {
    let interface = rustix::net::netdevice::name_to_index(client(RESOLVER)?, GUEST)
        .with_context(|| format!("there is no interface {GUEST}"))?;
    let program = bpf::classifier_at(interface, TCX_INGRESS)?;
    let empty = bpf::empty_classifier()?;
    let exact = (0..NAMES).map(|number| exact_name(number * 97 % EXACT)).collect::<Vec<_>>();
    let below = |number| format!("job.{}", wildcard_suffix(number % WILDCARDS));
    let foreign = |number| format!("n{number}.a.b.elsewhere.example");
    let kinds = [
        ("exact name", exact, 200.0),
        ("wildcard", (0..NAMES).map(below).collect(), 350.0),
        ("foreign name", (0..NAMES).map(foreign).collect(), 250.0),
    ];
    let mut rows = Vec::new();
    for (kind, names, limit) in kinds {
        let packets: Vec<Packet> = names.iter().map(|name| packet(name, interface)).collect();
        let mut extra = Vec::new();
        for _ in 0..rounds.max(3) {
            let ours = median(program.as_fd(), &packets)?;
            extra.push(ours - median(empty.as_fd(), &packets)?);
        }
        let what = format!("the program, {kind}, above an empty program");
        rows.push(Row::new(what, "ns", extra, Some(Goal::AtMost(limit))));
    }
    Ok(rows)
}

fn packet(name: &str, interface: u32) -> Packet {
    let (source, resolver) = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 53));
    Packet { octets: frames::query(source, resolver, &query(1, name)), interface }
}

/// The median of the times of one run for each packet: an interrupt in one of them changes nothing.
fn median(program: std::os::fd::BorrowedFd<'_>, packets: &[Packet]) -> Result<f64> {
    let times = packets.iter().map(|packet| Ok(f64::from(bpf::run(program, packet, 1)?.1)));
    Ok(Spread::of(times.collect::<Result<Vec<_>>>()?).median)
}
