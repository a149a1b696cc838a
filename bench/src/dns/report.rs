//! The results of `cargo xtask bench dns`, as JSON and as Markdown.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::soak::Soak;
use crate::{
    host, plot,
    rows::{self, Row},
    statistics::Spread,
};

/// The results of a run.
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
    /// The number of rounds, and the seconds of a turn.
    pub rounds: (usize, u32),
    /// The results of each server.
    pub turns: Vec<Turn>,
    /// The shim compared with each other server.
    pub ratios: Vec<Ratio>,
    /// Round trips of one query at a time, in microseconds.
    pub latencies: Vec<Latency>,
    /// Resident memory of the shim in KiB: at the start, after each round.
    pub memory_kib: Vec<u64>,
    /// Answers in the kernel.
    #[serde(default)]
    pub in_kernel: Vec<Row>,
    /// Memory under a steady load, if measured.
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
    /// The load of the clients' core and of the servers' core, in percent.
    #[serde(default)]
    pub busy: [Spread; 2],
    /// Queries without an answer, of all rounds.
    pub lost: u64,
}

/// The shim's rate over another's in the same round.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ratio {
    /// As in [`Turn`].
    pub load: String,
    /// The other server.
    pub against: String,
    /// The ratio of the rates.
    pub rate: Spread,
    /// The other's processor time per query over the shim's: the ratio of rates on an idle
    /// machine.
    pub cpu: Spread,
    /// The target of the rate's ratio, if any.
    pub target: Option<f64>,
}

/// Round trips.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// The server.
    pub server: String,
    /// The median of each round.
    pub median: Spread,
    /// The difference to the upstream's own, by round.
    pub added: Spread,
}

impl Report {
    /// A bar for each other server under each load: the ratio of the rates.
    pub(crate) fn svg(&self) -> String {
        let label = |ratio: &Ratio| format!("{} ({})", ratio.against, ratio.load);
        let ratios: Vec<_> = self.ratios.iter().map(|ratio| (label(ratio), &ratio.rate)).collect();
        let bars: Vec<_> = ratios.iter().map(|(label, rate)| (label.as_str(), *rate)).collect();
        let note = format!(
            "{}; {}. Dashed: as fast as the other; whiskers: quartiles.",
            self.machine, self.date
        );
        plot::single("queries/s of the shim: × the other server", &bars, &note)
    }

    /// The report as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::from("# DNS\n\n");
        let (rounds, seconds) = self.rounds;
        let _ = writeln!(text, "{}, {}. {}.\n", self.date, self.machine, self.versions.join(", "));
        let load = if self.load[0] > host::BUSY {
            "a busy machine: other work affects queries per second, hardly processor time per \
             query and ratios"
        } else {
            "an otherwise idle machine"
        };
        let _ = writeln!(
            text,
            "{rounds} rounds of {seconds} s for each server in turn. The servers run on core 1, \
             dnsperf and the upstream on core 0; for round trips all run on core 1. Load average \
             {:.1} before and {:.1} after: {load}. Figures: median (quartiles).\n",
            self.load[0], self.load[1],
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
        text.push_str(
            "\nIn \"local\", core 1 receives the packets of loopback (receive packet steering), as \
             if a network card interrupted the servers' core: that core is the limit. In \"not \
             steered\", the sending core also does the receiver's kernel work, and dnsperf's core \
             is full before the servers'.\n",
        );
        let _ = writeln!(
            text,
            "\n| load | redirector compared with | queries/s | by CPU time | target | met \
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
        let _ =
            writeln!(text, "\n## In the kernel\n\n{}", rows::markdown(&self.in_kernel).trim_end());
        if let Some(soak) = &self.soak {
            let (first, last) = soak.ends();
            let _ = writeln!(
                text,
                "\nUnder {} queries in {} s, half of them forwarded, {} lost: {first} KiB at most \
                    in the first minute, {last} KiB at most in the last one. Every ten \
                    seconds: {}.",
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
