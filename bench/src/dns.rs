//! `cargo xtask bench dns`: the shim beside unbound and dnsmasq, on the same core in the same
//! minutes.
//!
//! Every server runs all the time and takes its turn; what is judged are ratios of neighbours in
//! time, so that a machine that does other things meanwhile disturbs all alike. Processor time per
//! query is told beside queries per second: it does not count what others took.

mod report;
mod servers;
mod soak;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use self::servers::{Server, client, query};
pub use self::{
    report::{Latency, Ratio, Report, Turn},
    soak::Soak,
};
use super::{host, statistics::Spread};
use testbed::{IsolatedNetns, ResolvConf, packages, process, workspace};

/// What the clients ask for: ours, and names of the upstream, of which no two are the same.
const LOCAL: &str = "artifactory.internal.company.net";
const ZONE: &str = "elsewhere.example";
/// Names of the upstream; more than are asked for while an answer is on its way.
const NAMES: u32 = 20_000;
const DNSPERF_EXTRA: Duration = Duration::from_secs(20);
/// Longest time until a server answers.
const START: Duration = Duration::from_secs(10);

/// How it runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rounds; in each, every server has its turn
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Seconds of a turn
    #[arg(long, default_value_t = 1)]
    seconds: u32,
    /// Seconds of a steady load at the end, over which memory is read; 600 for a published run
    #[arg(long, default_value_t = 0)]
    soak: u32,
    /// Scheduling priority of everything measured: below zero, other work on this machine disturbs
    /// less
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    nice: i32,
    /// The shim to measure [default: the release build of the example `shim`]
    #[arg(long, value_name = "FILE")]
    shim: Option<PathBuf>,
    /// Where dns.json and dns.md go [default: bench/results]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Runs it, prints the result and writes it down.
pub fn run(options: &Options) -> Result<()> {
    let island = IsolatedNetns::new(&ResolvConf::default())?;
    let report = island.run(|| measure(options, &island))??;
    let text = report.markdown();
    print!("{text}");
    let folder = options.output.clone().unwrap_or_else(|| workspace::root().join("bench/results"));
    super::write_files(&folder, &[("dns.json", super::json(&report)?), ("dns.md", text)])
}

fn measure(options: &Options, island: &IsolatedNetns) -> Result<Report> {
    let shim = options
        .shim
        .clone()
        .unwrap_or_else(|| workspace::target_dir().join("release/examples/shim"));
    ensure!(
        shim.is_file(),
        "there is no {}: run `cargo build --release -p redirector --example shim`",
        shim.display()
    );
    let folder = tempfile::tempdir().context("failed to make a folder")?;
    let bench = Bench { options, folder: folder.path() };
    let upstream = bench.unbound(
        "upstream",
        &format!("local-zone: \"{ZONE}.\" redirect\n local-data: \"{ZONE}. 30 IN A 192.0.2.1\""),
        0,
    )?;
    let local = bench.unbound(
        "unbound",
        &format!("local-zone: \"{LOCAL}.\" static\n local-data: \"{LOCAL}. 30 IN A 198.18.0.1\""),
        1,
    )?;
    let dnsmasq = bench.dnsmasq(upstream.address)?;
    let shim = bench.shim(&shim, upstream.address)?;

    let mut report = Report {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        machine: host::machine(),
        versions: versions(),
        load: [host::load(), 0.0],
        rounds: (options.rounds, options.seconds),
        memory_kib: vec![host::resident_kib(shim.child.id())],
        ..Report::default()
    };
    let own = bench.queries("local", [format!("{LOCAL} A")])?;
    let others = bench.queries("forwarded", (0..NAMES).map(|n| format!("n{n}.{ZONE} A")))?;
    let loads = [
        Load {
            name: "local",
            steered: true,
            queries: own.clone(),
            outstanding: 200,
            peers: vec![(&local, Some(1.2)), (&dnsmasq, Some(1.5))],
        },
        Load {
            name: "local, not steered",
            steered: false,
            queries: own,
            outstanding: 200,
            peers: vec![(&local, None), (&dnsmasq, None)],
        },
        Load {
            name: "forwarded",
            steered: false,
            queries: others,
            outstanding: 50,
            peers: vec![(&dnsmasq, Some(1.0))],
        },
    ];
    for Load { name: load, steered, queries, outstanding, peers } in loads {
        island.steer_loopback(steered.then_some(1))?;
        let servers: Vec<&Server> =
            std::iter::once(&shim).chain(peers.iter().map(|(peer, _)| *peer)).collect();
        let mut turns: Vec<Vec<Measured>> = vec![Vec::new(); servers.len()];
        for round in 0..options.rounds {
            eprint!("\r{load}: round {} of {}  ", round + 1, options.rounds);
            // Everyone is first and last equally often.
            for n in 0..servers.len() {
                let at = (n + round) % servers.len();
                turns[at].push(bench.turn(servers[at], &queries, outstanding)?);
            }
            report.memory_kib.push(host::resident_kib(shim.child.id()));
        }
        eprintln!();
        report.turns.extend(servers.iter().zip(&turns).map(|(server, turns)| Turn {
            load: load.into(),
            server: server.name.into(),
            rate: Spread::of(turns.iter().map(|turn| turn.rate).collect()),
            cpu: Spread::of(turns.iter().map(|turn| turn.cpu).collect()),
            busy: [0, 1].map(|core| Spread::of(turns.iter().map(|turn| turn.busy[core]).collect())),
            lost: turns.iter().map(|turn| turn.lost).sum(),
        }));
        report.ratios.extend(peers.iter().zip(&turns[1..]).map(|((peer, target), theirs)| Ratio {
            load: load.into(),
            against: peer.name.into(),
            rate: Spread::of(
                turns[0].iter().zip(theirs).map(|(ours, theirs)| ours.rate / theirs.rate).collect(),
            ),
            cpu: Spread::of(
                turns[0].iter().zip(theirs).map(|(ours, theirs)| theirs.cpu / ours.cpu).collect(),
            ),
            target: *target,
        }));
    }
    // A round trip between cores would mostly measure how this machine wakes a core.
    pin(Some(upstream.child.id()), 1)?;
    pin(None, 1)?;
    report.latencies = latencies(options.rounds, &upstream, &[&shim, &dnsmasq])?;
    report.load[1] = host::load();
    if options.soak > 0 {
        pin(Some(upstream.child.id()), 0)?;
        report.soak = Some(soak::run(&bench, &shim, options.soak)?);
    }
    Ok(report)
}

/// What clients ask, and whom besides the shim, with the quotient of rates that was promised.
struct Load<'a> {
    name: &'static str,
    /// Whether queries and replies are received on the servers' core.
    steered: bool,
    queries: PathBuf,
    outstanding: u32,
    peers: Vec<(&'a Server, Option<f64>)>,
}

/// Where servers have their files.
struct Bench<'a> {
    options: &'a Options,
    folder: &'a Path,
}

#[derive(Clone, Copy)]
struct Measured {
    rate: f64,
    cpu: f64,
    busy: [f64; 2],
    lost: u64,
}

impl Bench<'_> {
    fn queries(&self, name: &str, lines: impl IntoIterator<Item = String>) -> Result<PathBuf> {
        let path = self.folder.join(name);
        let text: String = lines.into_iter().map(|line| line + "\n").collect();
        fs::write(&path, text).context("failed to write the queries")?;
        Ok(path)
    }

    /// One server under load, by dnsperf on the other core.
    fn turn(&self, server: &Server, queries: &Path, outstanding: u32) -> Result<Measured> {
        let mut command = self.pinned(0, &packages::path_of("dnsperf")?)?;
        command
            .args(["-s", "127.0.0.1", "-c", "8", "-T", "1", "-t", "1", "-p"])
            .arg(server.address.port().to_string())
            .arg("-d")
            .arg(queries);
        command
            .arg("-q")
            .arg(outstanding.to_string())
            .arg("-l")
            .arg(self.options.seconds.to_string());
        let (before, cores) = (host::processor_time(server.child.id())?, host::cores()?);
        let output = process::finish(
            command,
            DNSPERF_EXTRA + Duration::from_secs(self.options.seconds.into()),
        )?
        .success()?
        .stdout;
        let cpu = host::processor_time(server.child.id())? - before;
        let since: Vec<[u64; 2]> = host::cores()?
            .iter()
            .zip(cores)
            .map(|(now, then)| [now[0] - then[0], now[1] - then[1]])
            .collect();
        let busy = [0, 1].map(|core| {
            since.get(core).map_or(0.0, |[busy, all]| *busy as f64 * 100.0 / (*all).max(1) as f64)
        });
        let figure = |label| figure(&output, label);
        let completed = figure("Queries completed:")?;
        ensure!(completed > 0.0, "{} answered nothing", server.name);
        Ok(Measured {
            rate: figure("Queries per second:")?,
            cpu: cpu / completed,
            busy,
            lost: figure("Queries lost:")? as u64,
        })
    }
}

/// A number that dnsperf says.
fn figure(output: &str, label: &str) -> Result<f64> {
    let line = output
        .lines()
        .find_map(|line| line.trim().strip_prefix(label))
        .with_context(|| format!("dnsperf says no {label}"))?;
    let word = line.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
    word.with_context(|| format!("dnsperf's {label} is no number"))
}

/// Round trips of single queries to the upstream and through each server, in turns.
fn latencies(rounds: usize, upstream: &Server, servers: &[&Server]) -> Result<Vec<Latency>> {
    const QUERIES: u16 = 300;
    let everyone: Vec<&Server> = std::iter::once(upstream).chain(servers.iter().copied()).collect();
    let mut medians: Vec<Vec<f64>> = vec![Vec::new(); everyone.len()];
    for round in 0..rounds {
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); everyone.len()];
        for n in 0..QUERIES {
            for (server, times) in everyone.iter().zip(&mut times) {
                let socket = client(server.address)?;
                let query = query(n, &format!("l{round}-{n}.{ZONE}"));
                let start = Instant::now();
                socket.send(&query).context("failed to send")?;
                // One that is lost has no round trip.
                if socket.recv(&mut [0; 512]).is_ok() {
                    times.push(start.elapsed().as_secs_f64() * 1e6);
                }
            }
        }
        medians
            .iter_mut()
            .zip(times)
            .for_each(|(medians, times)| medians.push(Spread::of(times).median));
    }
    let latency = |(server, medians_of): (&&Server, &Vec<f64>)| Latency {
        server: server.name.into(),
        median: Spread::of(medians_of.clone()),
        added: Spread::of(
            medians_of.iter().zip(&medians[0]).map(|(through, direct)| through - direct).collect(),
        ),
    };
    Ok(everyone.iter().zip(&medians).map(latency).collect())
}

/// Moves a process of one thread, or this thread, to a core.
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
