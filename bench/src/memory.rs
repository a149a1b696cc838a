//! `cargo xtask bench memory`: what redirector and each peer keep in memory, for open connections
//! and for routes.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    comparison::publish,
    host,
    options::Options,
    peers::{
        lineup::Lineup,
        peer::{Peer, Routes},
        report::{Figure, Report, compare, routes},
    },
};

/// How much is measured.
struct Effort {
    rounds: usize,
    /// Connections that are open at the same time.
    connections: u32,
    routes: u32,
}

/// As many connections as HAProxy can hold with the usual limit of descriptors.
const FULL: Effort = Effort { rounds: 7, connections: 5000, routes: 50_000 };
const QUICK: Effort = Effort { rounds: 1, connections: 200, routes: 200 };

/// The number of connections that the figures are for.
const REPORTED: f64 = 10_000.0;
/// How long the kernel takes to free what closed connections held.
const SETTLED: Duration = Duration::from_millis(800);
const KIB_PER_MIB: f64 = 1024.0;

/// Measures, prints the result, and writes it into the results' folder.
pub fn run(options: &Options) -> Result<()> {
    publish(&measure(options)?, options, "memory", "Memory")
}

/// Measures on a site of its own; needs root.
pub fn measure(options: &Options) -> Result<Report> {
    let effort = if options.quick { QUICK } else { FULL };
    let (mut lineup, mut report) = Lineup::with_report(options, effort.routes, 1)?;
    lineup.load(Routes::single(1))?;
    report.figures.extend(at_rest(&lineup, 1)?);
    eprintln!("opening connections");
    report.figures.extend(connections(&mut lineup, &effort)?);
    eprintln!("loading {} routes", effort.routes);
    lineup.load(Routes::single(effort.routes))?;
    report.figures.extend(at_rest(&lineup, effort.routes)?);
    Ok(report.finish())
}

/// Memory of processes and of eBPF maps without connections.
fn at_rest(lineup: &Lineup, count: u32) -> Result<Vec<Figure>> {
    let routes = routes(count);
    thread::sleep(SETTLED);
    let mut figures = Vec::new();
    for peer in lineup.peers.iter().filter(|peer| !peer.pids().is_empty()) {
        let measure = format!("resident memory of its processes; {routes}");
        let resident = resident_kib(&**peer) / KIB_PER_MIB;
        figures.push(Figure::new(&measure, peer.label(), "MiB", vec![resident]));
    }
    for peer in &lineup.peers {
        let measure = format!("memory of its eBPF maps; {routes}");
        let mib = peer.map_bytes()? as f64 / KIB_PER_MIB / KIB_PER_MIB;
        if mib > 0.0 {
            figures.push(Figure::new(&measure, peer.label(), "MiB", vec![mib]));
        }
    }
    Ok(figures)
}

/// What open connections hold.
#[derive(Clone, Copy)]
struct Held {
    slab_kib: f64,
    resident_kib: f64,
    conntrack: f64,
}

impl Held {
    fn by(peer: &dyn Peer) -> Result<Self> {
        Ok(Self {
            slab_kib: slab_kib()?,
            resident_kib: resident_kib(peer),
            conntrack: conntrack_entries(peer)?,
        })
    }
}

fn connections(lineup: &mut Lineup, effort: &Effort) -> Result<Vec<Figure>> {
    let chosen = lineup.select(|peer| !peer.is_dns_only());
    let labels: Vec<_> = chosen.iter().map(|which| lineup.peers[*which].label()).collect();
    let mut values = [(); 3].map(|()| vec![Vec::new(); chosen.len()]);
    for round in 0..effort.rounds {
        for (position, which) in chosen.iter().enumerate() {
            let (peer, client) = (&lineup.peers[*which], &mut lineup.clients[*which]);
            let target = peer.target(0)?;
            let before = Held::by(&**peer)?;
            client.hold(effort.connections, target)?;
            let after = Held::by(&**peer)?;
            client.release(target)?;
            thread::sleep(SETTLED);
            let each = REPORTED / f64::from(effort.connections);
            let mut add = |measure: usize, before: f64, after: f64, unit: f64| {
                values[measure][position].push((after - before).max(0.0) * each / unit);
            };
            add(0, before.slab_kib, after.slab_kib, KIB_PER_MIB);
            // Later rounds would find what the first one left: memory that a process keeps, and
            // entries of closed connections.
            if round > 0 {
                continue;
            }
            add(1, before.resident_kib, after.resident_kib, KIB_PER_MIB);
            add(2, before.conntrack, after.conntrack, 1.0);
        }
    }
    let [slab, resident, conntrack] = values;
    let what = "10,000 open connections";
    let named = |measure: &str| format!("{measure} for {what}");
    Ok([
        compare(&named("kernel memory (slab)"), "MiB", &labels, &slab),
        compare(&named("growth of its processes"), "MiB", &labels, &resident),
        compare(&named("conntrack entries"), "", &labels, &conntrack),
    ]
    .concat())
}

fn resident_kib(peer: &dyn Peer) -> f64 {
    peer.pids().into_iter().map(host::resident_kib).sum::<u64>() as f64
}

/// Of the client's network namespace, where the translation is.
fn conntrack_entries(peer: &dyn Peer) -> Result<f64> {
    const PATH: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
    let count = peer.sandbox().read(PATH)?;
    count.trim().parse().with_context(|| format!("failed to read {PATH}: {count}"))
}

/// The kernel's memory for objects: sockets, connection tracking, socket storage.
fn slab_kib() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo").context("failed to read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok())
        .context("/proc/meminfo has no line `Slab`")
}
