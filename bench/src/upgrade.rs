//! `cargo xtask bench upgrade`: what clients lose when redirector or a peer is upgraded, crashes,
//! or serves a tenant that floods it.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    comparison::publish,
    lookup::name,
    options::Options,
    peers::{
        lineup::{self, Lineup},
        peer::{Peer, Routes},
        report::{Figure, Report},
    },
    steady::{self, Attempt},
    worker::{Operation, Worker},
};

/// How much is measured.
struct Effort {
    repeats: usize,
    /// Seconds of a client after the event.
    observed: f64,
    /// Connections that are open during the event.
    held: u32,
}

const FULL: Effort = Effort { repeats: 3, observed: 2.5, held: 100 };
const QUICK: Effort = Effort { repeats: 1, observed: 1.0, held: 5 };

/// Seconds of a client before the event.
const BEFORE: f64 = 0.5;
/// Look-ups and connects a second.
const RATE: u32 = 200;
/// How long a client waits for an answer, in seconds: as long as a resolver of the C library.
const PATIENCE: f64 = 5.0;
/// Operations of a batch of the tenant.
const FLOOD_BATCH: u32 = 100;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// It is upgraded, or its rules are replaced, as its documentation advises.
    Upgrade,
    /// Its processes are killed and started again.
    Crash,
    /// Another client of it connects, or looks names up, as fast as it can.
    Flood,
}

impl Event {
    const ALL: [Self; 3] = [Self::Upgrade, Self::Crash, Self::Flood];

    const fn label(self) -> &'static str {
        match self {
            Self::Upgrade => "upgrade",
            Self::Crash => "crash",
            Self::Flood => "flood by a tenant",
        }
    }
}

/// Measures, prints the result, and writes it into the results' folder.
pub fn run(options: &Options) -> Result<()> {
    publish(&measure(options)?, options, "upgrade", "Upgrade, crash, flood")
}

/// Measures on a site of its own; needs root.
pub fn measure(options: &Options) -> Result<Report> {
    let effort = if options.quick { QUICK } else { FULL };
    let (mut lineup, mut report) = Lineup::with_report(options, 1, 1)?;
    lineup.load(Routes::single(1))?;
    for event in Event::ALL {
        let mut outcomes = Vec::new();
        for which in lineup.select(|peer| peer.has_routes()) {
            if event == Event::Crash && lineup.peers[which].pids().is_empty() {
                continue;
            }
            let label = lineup.peers[which].label();
            eprintln!("{}: {label}", event.label());
            let runs = (0..effort.repeats).map(|_| observe(&mut lineup, which, event, &effort));
            let runs = runs.collect::<Result<Vec<_>>>().with_context(|| format!("with {label}"))?;
            outcomes.push((label, runs));
        }
        report.figures.extend(figures(event, &outcomes, &effort));
    }
    Ok(report.finish())
}

/// A client's losses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Outcome {
    failed: f64,
    slowest_ms: f64,
    /// Open connections that were cut.
    cut: f64,
}

fn observe(lineup: &mut Lineup, which: usize, event: Event, effort: &Effort) -> Result<Outcome> {
    let Lineup { clients, peers, .. } = lineup;
    let (peer, holder) = (&mut peers[which], &mut clients[which]);
    let target = peer.target(0)?;
    holder.hold(effort.held, target)?;
    let options = steady::Options {
        target,
        resolver: peer.resolver(),
        name: peer.resolver().map(|_| name(0)),
        every_address: false,
        rate: RATE,
        seconds: BEFORE + effort.observed,
        patience: PATIENCE,
        output: peer.sandbox().home().join("attempts"),
    };
    let client = steady::Process::start(peer.sandbox(), &options)?;
    thread::sleep(Duration::from_secs_f64(BEFORE));
    match event {
        Event::Upgrade => peer.upgrade()?,
        Event::Crash => peer.crash()?,
        Event::Flood => flood(&**peer, Duration::from_secs_f64(effort.observed))?,
    }
    let attempts = client.attempts()?;
    let alive = holder.alive()?;
    holder.release(target)?;
    Ok(Outcome { cut: f64::from(effort.held - alive), ..outcome(&attempts) })
}

fn outcome(attempts: &[Attempt]) -> Outcome {
    Outcome {
        failed: attempts.iter().filter(|attempt| attempt.failed()).count() as f64,
        slowest_ms: attempts.iter().map(|attempt| attempt.took_us).max().unwrap_or(0) as f64 / 1e3,
        cut: 0.0,
    }
}

/// A second client of the peer, on the first core, that never pauses.
fn flood(peer: &dyn Peer, time: Duration) -> Result<()> {
    let operations = if peer.resolver().is_some() {
        vec![Operation::LookUp, Operation::Tcp]
    } else {
        vec![Operation::Tcp]
    };
    let batches = operations
        .into_iter()
        .map(|operation| lineup::batch(peer, operation, FLOOD_BATCH))
        .collect::<Result<Vec<_>>>()?;
    let mut tenant = Worker::client(peer.sandbox(), 0)?;
    let began = Instant::now();
    while began.elapsed() < time {
        for batch in &batches {
            tenant.run(*batch)?;
        }
    }
    Ok(())
}

fn figures(event: Event, outcomes: &[(&str, Vec<Outcome>)], effort: &Effort) -> Vec<Figure> {
    let count = f64::from(RATE) * (BEFORE + effort.observed);
    let measure = |what: &str, unit: &str, of: &dyn Fn(&Outcome) -> f64| -> Vec<Figure> {
        let what = format!("{}: {what}", event.label());
        outcomes
            .iter()
            .map(|(label, runs)| Figure::new(&what, label, unit, runs.iter().map(of).collect()))
            .collect()
    };
    [
        measure(&format!("look-ups and connects lost, of {count:.0}"), "", &|run| run.failed),
        measure("the slowest one", "ms", &|run| run.slowest_ms),
        measure(&format!("open connections cut, of {}", effort.held), "", &|run| run.cut),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_and_the_slowest_attempt_is_found() {
        let attempt = |took_us, error: Option<&str>| Attempt {
            at_us: 0,
            took_us,
            error: error.map(str::to_owned),
        };
        let attempts = [attempt(100, None), attempt(7000, None), attempt(200, Some("look-up"))];
        let expected = Outcome { failed: 1.0, slowest_ms: 7.0, cut: 0.0 };
        assert_eq!(outcome(&attempts), expected);
    }
}
