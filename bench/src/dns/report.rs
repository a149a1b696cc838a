//! What a run of `cargo xtask bench dns` found, for a program and for a person.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::soak::Soak;
use crate::statistics::Spread;

/// What a run found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// When it began, UTC.
    pub date: String,
    /// Kernel release, processor, cores.
    pub machine: String,
    /// The programs and their versions.
    pub versions: Vec<String>,
    /// Load averages of one minute, before and after.
    pub load: [f64; 2],
    /// Rounds, and seconds of a turn.
    pub rounds: (usize, u32),
    /// What each server did.
    pub turns: Vec<Turn>,
    /// The shim against each other server.
    pub ratios: Vec<Ratio>,
    /// Round trips of one query at a time, in microseconds.
    pub latencies: Vec<Latency>,
    /// Resident memory of the shim in KiB: at the start, after each round.
    pub memory_kib: Vec<u64>,
    /// Memory under a steady load, if it was asked for.
    #[serde(default)]
    pub soak: Option<Soak>,
}

/// One server under one load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Turn {
    /// `local`, `local, not steered` or `forwarded`.
    pub load: String,
    /// The server.
    pub server: String,
    /// Answered queries per second of wall clock.
    pub rate: Spread,
    /// Processor time of the server, in microseconds per query.
    pub cpu: Spread,
    /// How busy the clients' core and the servers' were, in percent.
    #[serde(default)]
    pub busy: [Spread; 2],
    /// Queries without an answer, of all rounds.
    pub lost: u64,
}

/// The shim's rate over another's in the same round.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ratio {
    /// As of a turn.
    pub load: String,
    /// The other server.
    pub against: String,
    /// Quotient of the rates.
    pub rate: Spread,
    /// Quotient of the processor times per query, the other's over the shim's: what the rate would
    /// be if nothing else were at work.
    pub cpu: Spread,
    /// What was promised of the rate, if anything was.
    pub target: Option<f64>,
}

/// Round trips.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Who was asked.
    pub server: String,
    /// The median of each round.
    pub median: Spread,
    /// What it adds to the upstream's own, by round.
    pub added: Spread,
}

impl Report {
    /// The report for a person.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::from("# DNS\n\n");
        let (rounds, seconds) = self.rounds;
        let _ = writeln!(text, "{}, {}. {}.\n", self.date, self.machine, self.versions.join(", "));
        let _ = writeln!(
            text,
            "{rounds} rounds of {seconds} s for each server in turn; servers on core 1, dnsperf and the upstream on core 0; for round trips all on core 1. Load average {:.1} before \
             and {:.1} after, on {}. Figures: median (quartiles).\n",
            self.load[0],
            self.load[1],
            if self.load[0] > 2.5 {
                "a machine whose cores others used, too: queries per second suffer from them, \
                    processor time per query and ratios hardly"
            } else {
                "a machine that is idle otherwise"
            }
        );
        let _ = writeln!(
            text,
            "| load | server | queries/s | CPU µs/query | core 0 busy, % | core 1 busy, % | lost \
                |\n|---|---|---|---|---|---|---|"
        );
        for Turn { load, server, rate, cpu, busy: [clients, servers], lost } in &self.turns {
            let _ = writeln!(
                text,
                "| {load} | {server} | {} | {} | {:.0} | {:.0} | {lost} |",
                spread(rate, 0),
                spread(cpu, 2),
                clients.median,
                servers.median
            );
        }
        let _ = writeln!(
            text,
            "\nIn \"local\" what loopback carries is received on core 1 (receive packet steering), as it is where a network card's interrupts come to the servers' core: there \
             the servers' core is the limit. Not steered, the core that sends a query also does what its receiver's kernel has to do, and dnsperf's core is full before the servers'."
        );
        let _ = writeln!(
            text,
            "\n| load | redirector against | queries/s | by CPU time | target | met \
                |\n|---|---|---|---|---|---|"
        );
        for Ratio { load, against, rate, cpu, target } in &self.ratios {
            let (target, met) = match target {
                Some(target) if rate.median >= *target => (target.to_string(), "yes"),
                Some(target) => (target.to_string(), "**no**"),
                None => (String::new(), ""),
            };
            let _ = writeln!(
                text,
                "| {load} | {against} | {} | {} | {target} | {met} |",
                spread(rate, 2),
                spread(cpu, 2)
            );
        }
        let _ = writeln!(text, "\n| one query at a time | median µs | added µs |\n|---|---|---|");
        for Latency { server, median, added } in &self.latencies {
            let _ = writeln!(text, "| {server} | {} | {} |", spread(median, 1), spread(added, 1));
        }
        let most = self.memory_kib.iter().max().copied().unwrap_or(0);
        let ends = (
            self.memory_kib.first().copied().unwrap_or(0),
            self.memory_kib.last().copied().unwrap_or(0),
        );
        let _ = writeln!(
            text,
            "\nThe target of the added median is 60 µs. Memory of the shim: {} KiB at the start, \
                {} KiB at the end, {most} KiB at most.",
            ends.0, ends.1
        );
        if let Some(soak) = &self.soak {
            let (first, last) = soak.ends();
            let _ = writeln!(
                text,
                "\nUnder {} queries in {} s, half of them forwarded, {} lost: {first} KiB at most \
                    in the first minute, {last} KiB at most in the last one. Every ten seconds: {}.",
                soak.queries,
                soak.seconds,
                soak.lost,
                soak.memory_kib.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
            );
        }
        text
    }
}

fn spread(spread: &Spread, digits: usize) -> String {
    format!(
        "{:.digits$} ({:.digits$} to {:.digits$})",
        spread.median, spread.quartile_1, spread.quartile_3
    )
}
