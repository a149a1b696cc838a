//! `cargo xtask bench dns`: the shim beside unbound and dnsmasq, on the same core, in turns.
//!
//! Processor time per query stands beside queries per second, since other work on the machine
//! hardly affects it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use testbed::{IsolatedNetns, ResolvConf, packages, workspace};

use super::{
    dnsperf::{Dnsperf, Measured, write_queries},
    in_kernel::{self, Peers},
    latency,
    report::{Ratio, Report, Turn},
    servers::{LOCAL, Launcher, NAMES, Server, ZONE},
    soak,
};
use crate::{
    host,
    options::{json, write_files},
    packets,
    statistics::Spread,
};

/// The product's example that runs only the shim.
pub const EXAMPLE: &str = "shim";

/// Options of the benchmark.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The number of rounds; each server has one turn in each
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Seconds of a turn
    #[arg(long, default_value_t = 1)]
    seconds: u32,
    /// Seconds of a steady load at the end, for memory; 600 in published runs
    #[arg(long, default_value_t = 0)]
    soak: u32,
    /// Scheduling priority of the measured processes: below 0, other work disturbs less
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    nice: i32,
    /// The shim to measure [default: the release build of the example `shim`]
    #[arg(long, value_name = "FILE")]
    pub(crate) shim: Option<PathBuf>,
    /// The program that attaches the packet datapath [default: a release build of the example
    /// `packets`]
    #[arg(long, value_name = "FILE")]
    pub(crate) packets: Option<PathBuf>,
    /// Only what is answered in the kernel
    #[arg(long)]
    in_kernel_only: bool,
    /// The folder for dns.json, dns.md and dns.svg [default: bench/results]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Measures, prints the result, and writes it into the results' folder.
pub fn run(options: &Options) -> Result<()> {
    let netns = IsolatedNetns::new(&ResolvConf::default())?;
    let report = netns.run(|| measure(options, &netns))??;
    let text = report.markdown();
    print!("{text}");
    let folder = options.output.clone().unwrap_or_else(|| workspace::root().join("bench/results"));
    write_files(
        &folder,
        &[("dns.json", json(&report)?), ("dns.md", text), ("dns.svg", report.svg())],
    )
}

fn measure(options: &Options, netns: &IsolatedNetns) -> Result<Report> {
    let shim = options.shim.clone().unwrap_or_else(|| workspace::release_example(EXAMPLE));
    ensure!(shim.is_file(), "there is no {}: `cargo xtask bench dns` builds it", shim.display());
    let folder = tempfile::tempdir().context("failed to make a folder")?;
    let launcher = Launcher { nice: options.nice, folder: folder.path() };
    let servers = Servers::start(&launcher, &shim)?;
    let mut report = Report {
        date: host::now(),
        machine: host::machine(),
        versions: versions(),
        load: [host::load(), 0.0],
        rounds: (options.rounds, options.seconds),
        memory_kib: vec![host::resident_kib(servers.shim.child.id())],
        ..Report::default()
    };
    let all = if options.in_kernel_only { Vec::new() } else { loads(&servers, folder.path())? };
    for load in all {
        netns.steer_loopback(load.steered.then_some(1))?;
        let turns = take_turns(options, &launcher, &servers.shim, &load, &mut report.memory_kib)?;
        load.add_to(&mut report, &servers.shim, &turns);
    }
    // A round trip between cores would mostly measure how this machine wakes a core.
    pin(Some(servers.upstream.child.id()), 1)?;
    pin(None, 1)?;
    let forwarders = [&servers.shim, &servers.dnsmasq];
    report.latencies = latency::measure(options.rounds, &servers.upstream, &forwarders)?;
    netns.steer_loopback(None)?;
    let peers = Peers { shim: &servers.shim, unbound: &servers.unbound };
    let packets =
        options.packets.clone().unwrap_or_else(|| workspace::release_example(packets::EXAMPLE));
    report.in_kernel =
        in_kernel::measure(options.rounds, &peers, &|setup| in_kernel::start(&packets, setup))?;
    report.load[1] = host::load();
    if options.soak > 0 {
        pin(Some(servers.upstream.child.id()), 0)?;
        report.soak = Some(soak::run(&launcher, &servers.shim, options.soak)?);
    }
    Ok(report)
}

/// Every server runs all the time.
struct Servers {
    upstream: Server,
    unbound: Server,
    dnsmasq: Server,
    shim: Server,
}

impl Servers {
    fn start(launcher: &Launcher<'_>, shim: &Path) -> Result<Self> {
        let zone = |name, kind, address| {
            format!("local-zone: \"{name}.\" {kind}\n local-data: \"{name}. 30 IN A {address}\"")
        };
        let upstream = launcher.unbound("upstream", &zone(ZONE, "redirect", "192.0.2.1"), 0)?;
        Ok(Self {
            unbound: launcher.unbound("unbound", &zone(LOCAL, "static", "198.18.0.1"), 1)?,
            dnsmasq: launcher.dnsmasq(upstream.address)?,
            shim: launcher.shim(shim, upstream.address)?,
            upstream,
        })
    }
}

/// What clients query, and the shim's peers, each with the target of the rates' ratio.
struct Load<'a> {
    name: &'static str,
    /// Whether queries and replies are received on the servers' core.
    steered: bool,
    queries: PathBuf,
    outstanding: u32,
    peers: Vec<(&'a Server, Option<f64>)>,
}

fn loads<'a>(servers: &'a Servers, folder: &Path) -> Result<Vec<Load<'a>>> {
    let local = write_queries(folder, "local", [format!("{LOCAL} A")])?;
    let forwarded =
        write_queries(folder, "forwarded", (0..NAMES).map(|n| format!("n{n}.{ZONE} A")))?;
    Ok(vec![
        Load {
            name: "local",
            steered: true,
            queries: local.clone(),
            outstanding: 200,
            peers: vec![(&servers.unbound, Some(1.2)), (&servers.dnsmasq, Some(1.5))],
        },
        Load {
            name: "local, not steered",
            steered: false,
            queries: local,
            outstanding: 200,
            peers: vec![(&servers.unbound, None), (&servers.dnsmasq, None)],
        },
        Load {
            name: "forwarded",
            steered: false,
            queries: forwarded,
            outstanding: 50,
            peers: vec![(&servers.dnsmasq, Some(1.0))],
        },
    ])
}

/// The turns of the shim, then those of each peer.
fn take_turns(
    options: &Options,
    launcher: &Launcher<'_>,
    shim: &Server,
    load: &Load<'_>,
    memory_kib: &mut Vec<u64>,
) -> Result<Vec<Vec<Measured>>> {
    let servers: Vec<&Server> =
        std::iter::once(shim).chain(load.peers.iter().map(|(peer, _)| *peer)).collect();
    let mut turns: Vec<Vec<Measured>> = vec![Vec::new(); servers.len()];
    for round in 0..options.rounds {
        eprint!("\r{}: round {} of {}  ", load.name, round + 1, options.rounds);
        // Each server is first and last equally often.
        for n in 0..servers.len() {
            let at = (n + round) % servers.len();
            let dnsperf = Dnsperf {
                queries: &load.queries,
                outstanding: load.outstanding,
                seconds: options.seconds,
            };
            turns[at].push(dnsperf.run(launcher, servers[at])?);
        }
        memory_kib.push(host::resident_kib(shim.child.id()));
    }
    eprintln!();
    Ok(turns)
}

impl Load<'_> {
    fn add_to(&self, report: &mut Report, shim: &Server, turns: &[Vec<Measured>]) {
        let servers = std::iter::once(shim).chain(self.peers.iter().map(|(peer, _)| *peer));
        report.turns.extend(servers.zip(turns).map(|(server, turns)| Turn {
            load: self.name.into(),
            server: server.name.into(),
            rate: Spread::of(turns.iter().map(|turn| turn.rate).collect()),
            cpu: Spread::of(turns.iter().map(|turn| turn.cpu).collect()),
            busy: [0, 1].map(|core| Spread::of(turns.iter().map(|turn| turn.busy[core]).collect())),
            lost: turns.iter().map(|turn| turn.lost).sum(),
        }));
        let ours = &turns[0];
        report.ratios.extend(self.peers.iter().zip(&turns[1..]).map(|((peer, target), theirs)| {
            let pairs = || ours.iter().zip(theirs);
            Ratio {
                load: self.name.into(),
                against: peer.name.into(),
                rate: Spread::of(pairs().map(|(ours, theirs)| ours.rate / theirs.rate).collect()),
                cpu: Spread::of(pairs().map(|(ours, theirs)| theirs.cpu / ours.cpu).collect()),
                target: *target,
            }
        }));
    }
}

/// Moves a single-threaded process, or this thread, to a core.
fn pin(pid: Option<u32>, core: usize) -> Result<()> {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(pid, &cores).context("failed to move a process to a core")
}

fn versions() -> Vec<String> {
    let ask = |program: &str, flag: &str, mark: &str| {
        let output = packages::tool(program).ok()?.arg(flag).output().ok()?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        text.lines().find(|line| line.contains(mark)).map(|line| line.trim().to_owned())
    };
    let found = [
        ask("unbound", "-V", "Version"),
        ask("dnsmasq", "--version", "version"),
        ask("dnsperf", "-h", "Version"),
    ];
    std::iter::once(format!("redirector {}", env!("CARGO_PKG_VERSION")))
        .chain(found.into_iter().flatten())
        .collect()
}
