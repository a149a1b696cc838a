//! `cargo xtask bench failover`: one of two addresses dies, silently or with refusals; what clients
//! of redirector and of each peer notice, at the settings that each peer's documentation advises.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};
use testbed::{packages, process};

use crate::{
    clock,
    comparison::publish,
    lookup::name,
    options::Options,
    peers::{
        dnsmasq::Dnsmasq,
        lineup::Lineup,
        peer::{BACKENDS, Peer, Routes},
        report::{Figure, Report},
    },
    steady::{self, Attempt},
};

/// How much is measured.
struct Effort {
    repeats: usize,
    /// How long clients are observed after the death.
    observed: f64,
    /// How long everything has to find out that the address is alive again.
    recovery: Duration,
    /// How long a client waits for an answer, in seconds: longer than redirector and HAProxy let a
    /// connect take.
    patience: f64,
}

const FULL: Effort =
    Effort { repeats: 3, observed: 15.0, recovery: Duration::from_secs(12), patience: 6.0 };
const QUICK: Effort =
    Effort { repeats: 1, observed: 2.0, recovery: Duration::from_secs(1), patience: 4.0 };

/// Seconds of a client before the death.
const BEFORE: f64 = 1.0;
/// Connects a second of each client.
const RATE: u32 = 25;
/// The server waits for clients whose packets are dropped: there may be one of each peer.
const SERVER_THREADS: usize = 32;
/// Longest time of a command.
const LIMIT: Duration = Duration::from_secs(60);

/// How the address dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Its packets are dropped.
    Silent,
    /// Its connects are refused.
    Refused,
}

impl Death {
    const ALL: [Self; 2] = [Self::Silent, Self::Refused];

    const fn label(self) -> &'static str {
        match self {
            Self::Silent => "an address drops its packets",
            Self::Refused => "an address refuses its connects",
        }
    }

    const fn verdict(self) -> &'static str {
        match self {
            Self::Silent => "drop",
            Self::Refused => "meta l4proto tcp reject with tcp reset",
        }
    }
}

/// A client of a peer.
struct Entrant {
    label: &'static str,
    peer: usize,
    every_address: bool,
}

/// Measures, prints the result, and writes it into the results' folder.
pub fn run(options: &Options) -> Result<()> {
    publish(&measure(options)?, options, "failover", "An address dies")
}

/// Measures on a site of its own; needs root.
pub fn measure(options: &Options) -> Result<Report> {
    let effort = if options.quick { QUICK } else { FULL };
    let (mut lineup, mut report) = Lineup::with_report(options, 1, SERVER_THREADS)?;
    // dnsmasq rotates its answers: clients of one server would see each other's order.
    lineup.peers.push(Box::new(Dnsmasq::new(&lineup.site, "dnsmasqevery")?));
    lineup.load(Routes::BALANCED)?;
    let entrants = entrants(&lineup);
    for death in Death::ALL {
        let mut runs = Vec::new();
        for repeat in 0..effort.repeats {
            eprintln!("{}: {} of {}", death.label(), repeat + 1, effort.repeats);
            if !report.figures.is_empty() || repeat > 0 {
                thread::sleep(effort.recovery);
            }
            runs.push(observe(&lineup, &entrants, death, &effort)?);
        }
        report.figures.extend(figures(&entrants, death, &runs, effort.observed));
    }
    Ok(report.finish())
}

/// Every peer that uses two addresses; the last one is for clients that try both.
fn entrants(lineup: &Lineup) -> Vec<Entrant> {
    let entrant = |which: usize| {
        let peer = &lineup.peers[which];
        let every_address = which + 1 == lineup.peers.len();
        let label = match (peer.is_dns_only(), every_address) {
            (true, false) => "DNS only, first address",
            (true, true) => "DNS only, every address",
            _ => peer.label(),
        };
        Entrant { label, peer: which, every_address }
    };
    lineup.select(|peer| peer.balances()).into_iter().map(entrant).collect()
}

/// A client's connects after the death.
struct Outcome {
    /// Seconds from the death to the last connect that failed or was delayed.
    last: f64,
    failed: usize,
    delayed: usize,
}

/// Runs all clients at the same time while the second address dies.
fn observe(
    lineup: &Lineup,
    entrants: &[Entrant],
    death: Death,
    effort: &Effort,
) -> Result<Vec<Outcome>> {
    let clients = entrants
        .iter()
        .map(|entrant| start(&*lineup.peers[entrant.peer], entrant, effort))
        .collect::<Result<Vec<_>>>()?;
    thread::sleep(Duration::from_secs_f64(BEFORE));
    let died = clock::now_us();
    let rule = format!(
        "table ip death {{ chain input {{ type filter hook input priority 0; ip daddr {} tcp dport \
         {} {}\n }}\n }}\n",
        BACKENDS[1],
        lineup.site.port,
        death.verdict()
    );
    nft(lineup, &rule)?;
    let attempts = clients.into_iter().map(steady::Process::attempts).collect::<Result<Vec<_>>>();
    nft(lineup, "delete table ip death\n")?;
    Ok(attempts?.iter().map(|attempts| outcome(attempts, died)).collect())
}

fn start(peer: &dyn Peer, entrant: &Entrant, effort: &Effort) -> Result<steady::Process> {
    let resolver = peer.is_dns_only().then(|| peer.resolver()).flatten();
    let options = steady::Options {
        target: peer.target(0)?,
        resolver,
        name: resolver.map(|_| name(0)),
        every_address: entrant.every_address,
        rate: RATE,
        seconds: BEFORE + effort.observed,
        patience: effort.patience,
        output: peer.sandbox().home().join("attempts"),
    };
    steady::Process::start(peer.sandbox(), &options)
}

fn nft(lineup: &Lineup, script: &str) -> Result<()> {
    let mut nft = lineup.site.rig.node.command(packages::path_of("nft")?);
    nft.args(["-f", "-"]);
    process::finish_with_input(nft, script.as_bytes(), LIMIT)?
        .success()
        .context("failed to change what the address does")?;
    Ok(())
}

fn outcome(attempts: &[Attempt], died: u64) -> Outcome {
    let after = || attempts.iter().filter(|attempt| attempt.at_us >= died);
    let last = after().rfind(|attempt| attempt.failed() || attempt.delayed());
    Outcome {
        last: last.map_or(0.0, |attempt| (attempt.at_us - died) as f64 / 1e6),
        failed: after().filter(|attempt| attempt.failed()).count(),
        delayed: after().filter(|attempt| attempt.delayed()).count(),
    }
}

fn figures(
    entrants: &[Entrant],
    death: Death,
    runs: &[Vec<Outcome>],
    observed: f64,
) -> Vec<Figure> {
    let attempts = f64::from(RATE) * observed;
    let measure = |what: &str, unit: &str, of: &dyn Fn(&Outcome) -> f64| -> Vec<Figure> {
        let what = format!("{}: {what}", death.label());
        let figure = |(which, entrant): (usize, &Entrant)| {
            let values: Vec<f64> = runs.iter().map(|outcomes| of(&outcomes[which])).collect();
            let never = unit == "s" && values.iter().all(|value| *value > observed - 1.0);
            let note = if never { "until the end of the observation" } else { "" };
            Figure::new(&what, entrant.label, unit, values).with_note(note)
        };
        entrants.iter().enumerate().map(figure).collect()
    };
    [
        measure("until the last connect that it fails or delays", "s", &|outcome| outcome.last),
        measure(&format!("connects failed, of {attempts:.0}"), "", &|outcome| {
            outcome.failed as f64
        }),
        measure(&format!("connects delayed, of {attempts:.0}"), "", &|outcome| {
            outcome.delayed as f64
        }),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connects_from_before_the_death_do_not_count() {
        let attempt = |at_us, took_us, failed: bool| Attempt {
            at_us,
            took_us,
            error: failed.then(|| "connect".to_owned()),
        };
        let attempts = [
            attempt(1_000_000, 100, true),
            attempt(2_500_000, 3_000_000, false),
            attempt(4_000_000, 100, true),
            attempt(5_000_000, 100, false),
        ];
        let Outcome { last, failed, delayed } = outcome(&attempts, 2_000_000);
        assert_eq!((last, failed, delayed), (2.0, 1, 1));
    }
}
