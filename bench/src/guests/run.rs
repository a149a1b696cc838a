//! `cargo xtask bench guests`: what the packet datapath costs guests, and executors that only get
//! names from it.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    ops::Range,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use testbed::{topology::LOAD_BALANCERS, workspace};

use super::{
    fixture::{Attach, Fixture, VIP, Variant},
    frames::{self, Kind},
};
use crate::{
    bpf::{self, Packet},
    host,
    options::{self, json, last_core, write_files},
    packets::{EXAMPLE, Process},
    rounds::{Turns, alternate},
    rows::{self, Goal, Row},
    worker::{Batch, Operation},
};

/// Options of `cargo xtask bench guests`.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Options {
    /// Options of all benchmarks.
    #[command(flatten)]
    pub common: options::Options,
    /// The program that attaches the datapath [default: a release build of the example `packets`]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
}

/// The results of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// When it began, UTC.
    pub date: String,
    /// Kernel release, processor, cores.
    pub machine: String,
    /// The core of the measured processes.
    pub core: usize,
    /// Load averages of one minute, before and after.
    pub load: [f64; 2],
    /// The figures.
    pub rows: Vec<Row>,
}

/// How much is measured.
struct Effort {
    rounds: usize,
    /// Runs of a program for one measurement.
    repeat: u32,
    /// Runs that change their packet.
    singles: usize,
    /// Seconds of a comparison.
    seconds: f64,
}

const FULL: Effort = Effort { rounds: 2000, repeat: 200_000, singles: 20_000, seconds: 40.0 };
const QUICK: Effort = Effort { rounds: 6, repeat: 2000, singles: 200, seconds: 2.0 };

/// Connections of a batch.
const CONNECTIONS: u32 = 40;
/// Blocks of 64 KiB of a batch.
const BLOCKS: u32 = 128;
/// Runs of each program.
const TIMINGS: usize = 40;

/// Measures, prints the result, and writes it into the results' folder.
pub fn run(options: &Options) -> Result<()> {
    let program = options.program.clone().unwrap_or_else(|| workspace::release_example(EXAMPLE));
    // Absolute, since programs of the rig start in other folders.
    let program = program.canonicalize().with_context(|| {
        format!("there is no {}: `cargo xtask bench guests` builds it", program.display())
    })?;
    let report = measure(&options.common, &|rig, setup| {
        Ok(Box::new(Process::start(rig.node.command(&program), setup)?))
    })?;
    print!("{}", markdown(&report));
    let Some(folder) = options.common.folder() else { return Ok(()) };
    write(&report, &folder)?;
    eprintln!("written to {}", folder.join("guests.{json,md,svg}").display());
    Ok(())
}

/// Measures on a new rig; needs root and the TCX hook (6.6).
pub fn measure(options: &options::Options, attach: &Attach<'_>) -> Result<Report> {
    let effort = if options.quick { QUICK } else { FULL };
    let core = last_core()?;
    let mut report = Report {
        date: host::now(),
        machine: host::machine(),
        core,
        load: [host::load(), 0.0],
        ..Report::default()
    };
    eprintln!("starting a node and its guests; measuring on core {core}");
    let mut fixture = Fixture::new(attach, core).context("failed to set the benchmark up")?;
    eprintln!("timing the programs");
    report.rows.extend(foreign_packets(&fixture, &effort)?);
    report.rows.extend(redirected_packets(&fixture, &effort)?);
    eprintln!("measuring connections");
    report.rows.extend(connections(&mut fixture, &effort)?);
    report.rows.extend(names_only(&mut fixture, &effort)?);
    eprintln!("measuring bulk transfers");
    report.rows.extend(bulk(&mut fixture, &effort)?);
    report.load[1] = host::load();
    Ok(report)
}

/// The port of servers, and the guest's end of connections, of single packets.
const PORT: u16 = 443;
const GUEST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 61, 2, 2), 40_000);

/// The time of the programs for a packet that is not ours, above an empty program.
fn foreign_packets(fixture: &Fixture, effort: &Effort) -> Result<Vec<Row>> {
    let elsewhere = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), PORT);
    let directions = [
        (bpf::TCX_INGRESS, "in", frames::segment(GUEST, elsewhere, Kind::Data), 15.0),
        (bpf::TCX_EGRESS, "out", frames::segment(elsewhere, GUEST, Kind::Data), 25.0),
    ];
    fixture.at_the_guest(|interface| {
        let empty = bpf::empty_classifier()?;
        let mut rows = Vec::new();
        for (hook, direction, octets, limit) in directions {
            let program = bpf::classifier_at(interface, hook)?;
            let packet = Packet { octets, interface };
            let mut extra = Vec::new();
            for _ in 0..TIMINGS {
                let [(verdict, ours), (_, nothing)] = [program.as_fd(), empty.as_fd()]
                    .map(|program| bpf::run(program, &packet, effort.repeat))
                    .into_iter()
                    .collect::<Result<Vec<_>>>()?[..]
                else {
                    continue;
                };
                ensure!(verdict == -1, "a packet that is not ours got the verdict {verdict}");
                extra.push(f64::from(ours) - f64::from(nothing));
            }
            let what = format!("a packet that is not ours, {direction}, above an empty program");
            rows.push(Row::new(what, "ns", extra, Some(Goal::AtMost(limit))));
        }
        Ok(rows)
    })
}

/// The time of the programs for a data segment of a redirected connection, above an empty program.
/// A run changes the segment, so each is timed alone.
fn redirected_packets(fixture: &Fixture, effort: &Effort) -> Result<Vec<Row>> {
    let [vip, backend] = [VIP, LOAD_BALANCERS[0]].map(|address| SocketAddrV4::new(address, PORT));
    fixture.at_the_guest(|interface| {
        let empty = bpf::empty_classifier()?;
        let ingress = bpf::classifier_at(interface, bpf::TCX_INGRESS)?;
        let egress = bpf::classifier_at(interface, bpf::TCX_EGRESS)?;
        let packet = |source, target, kind| Packet {
            octets: frames::segment(source, target, kind),
            interface,
        };
        bpf::run(ingress.as_fd(), &packet(GUEST, vip, Kind::Syn), 1)?;
        bpf::run(egress.as_fd(), &packet(backend, GUEST, Kind::SynAck), 1)?;
        let directions = [
            (&ingress, "in", [GUEST, vip], [GUEST, backend]),
            (&egress, "out", [backend, GUEST], [vip, GUEST]),
        ];
        let mut rows = Vec::new();
        for (program, direction, [source, target], translated) in directions {
            let packet = packet(source, target, Kind::Data);
            let addresses = translated.map(|end| end.ip().octets()).concat();
            ensure!(
                bpf::result(program.as_fd(), &packet)?[ADDRESSES] == addresses,
                "a segment of a redirected connection, {direction}, was not translated"
            );
            let once = |program| bpf::run(program, &packet, 1).map(|(_, time)| f64::from(time));
            let mut extra = Vec::new();
            for _ in 0..effort.singles {
                extra.push(once(program.as_fd())? - once(empty.as_fd())?);
            }
            let what = format!("a redirected packet, {direction}, above an empty program");
            rows.push(Row::new(what, "ns", extra, None));
        }
        Ok(rows)
    })
}

/// Source and destination in a frame.
const ADDRESSES: Range<usize> = 26..34;

/// What is compared with the first of them.
const GUESTS: [Variant; 5] =
    [Variant::Bare, Variant::NotOurs, Variant::Redirected, Variant::Dnat, Variant::Empty];

/// Connect, one byte each way, close.
fn connections(fixture: &mut Fixture, effort: &Effort) -> Result<Vec<Row>> {
    const WHAT: &str = "connect, one byte each way, close";
    let times = turns(fixture, &GUESTS, (Operation::Tcp, CONNECTIONS), effort)?;
    let limit = Some(Goal::AtMost(1.06));
    let row = |what: &str, which, goal| {
        Row::new(format!("{WHAT}: {what} × bare"), "", times.ratios(which, 0), goal)
    };
    Ok(vec![
        Row::new(format!("{WHAT}: bare"), "µs", times.microseconds(0), None),
        row("redirected guest", 2, limit),
        row("attached guest, not ours", 1, None),
        row("empty programs", 4, None),
        row("nftables DNAT", 3, None),
    ])
}

/// The same for executors with the cgroup datapath.
fn names_only(fixture: &mut Fixture, effort: &Effort) -> Result<Vec<Row>> {
    let variants = [Variant::Cgroup, Variant::CgroupAndNames, Variant::CgroupAndEmpty];
    let times = turns(fixture, &variants, (Operation::Tcp, CONNECTIONS), effort)?;
    let row = |what: &str, values, goal| {
        Row::new(format!("cgroup executor: packets for names only × {what}"), "", values, goal)
    };
    Ok(vec![
        row("without", times.ratios(1, 0), Some(Goal::AtMost(1.01))),
        row("with empty programs", times.ratios(1, 2), None),
    ])
}

/// The rate of long transfers, as a ratio of rates.
fn bulk(fixture: &mut Fixture, effort: &Effort) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (operation, direction) in [(Operation::Upload, "up"), (Operation::Download, "down")] {
        let times = turns(fixture, &GUESTS, (operation, BLOCKS), effort)?;
        let row = |what: &str, which, goal| {
            // The inverse of the times' ratio.
            Row::new(format!("bulk {direction}: {what} × bare"), "", times.ratios(0, which), goal)
        };
        let limit = Some(Goal::AtLeast(0.98));
        rows.push(row("attached guest, not ours", 1, limit));
        rows.push(row("redirected guest", 2, limit));
        rows.push(row("empty programs", 4, None));
        rows.push(row("nftables DNAT", 3, None));
    }
    Ok(rows)
}

fn turns(
    fixture: &mut Fixture,
    variants: &[Variant],
    (operation, count): (Operation, u32),
    effort: &Effort,
) -> Result<Turns> {
    let limit = (effort.rounds, Duration::from_secs_f64(effort.seconds));
    alternate(variants.len(), limit, |which| {
        let (worker, target) = fixture.client(variants[which]);
        worker.run(Batch { operation, count, target, spread: 1 })
    })
}

fn markdown(report: &Report) -> String {
    let Report { date, machine, core, load: [before, after], rows } = report;
    format!(
        "# What packets cost\n\nMade by `cargo xtask bench guests`; \
         [how to read it](../README.md#guests).\n\n![plot](guests.svg)\n\n\
         {date}, {machine}, all on core {core}. Load average {before:.1} before and {after:.1} \
         after: {}.\n\n{}",
        host::describe_load(*before),
        rows::markdown(rows)
    )
}

/// Writes `guests.json`, `guests.md` and `guests.svg` into `folder`.
pub fn write(report: &Report, folder: &Path) -> Result<()> {
    let note =
        format!("{}; {}. Dashed: the goal; whiskers: quartiles.", report.machine, report.date);
    let svg = rows::svg(&report.rows, "guests: medians as a share of the goal", &note);
    write_files(
        folder,
        &[("guests.json", json(report)?), ("guests.md", markdown(report)), ("guests.svg", svg)],
    )
}
