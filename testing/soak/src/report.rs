//! What a soak has shown.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use testbed::clients::Outcome;

use crate::checker::{Rule, Violation};
use crate::history::{ClientInfo, Record};
use crate::timeline::Timeline;

/// Faults that began before a breach are shown back to a calm of this length.
const CALM_US: u64 = 1_000_000;
/// Breaches that are shown in full; the others are counted.
const SHOWN: usize = 5;

/// Operations of one kind by one client.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// All of them.
    pub count: u64,
    /// Those that ended as they must.
    pub right: u64,
    /// Those that failed, as the faults of their time allow.
    pub failed: u64,
    /// The 99th percentile of the time of the right ones, in microseconds.
    pub p99_us: u64,
    /// Their longest time, in microseconds.
    pub slowest_us: u64,
    #[serde(skip)]
    times_us: Vec<u32>,
}

/// A breach of the contract, with the faults that led up to it.
#[derive(Clone, Debug, Serialize)]
pub struct Breach {
    /// What was broken.
    pub rule: Rule,
    /// Seconds since the start.
    pub at: f64,
    /// Who and how.
    pub text: String,
    /// The shortest account of what happened before, oldest first.
    pub trace: Vec<String>,
}

/// The result of one soak.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The profile, for a person.
    pub title: String,
    /// The seed of its schedule.
    pub seed: u64,
    /// How long the clients ran.
    pub seconds: f64,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Operations by client and kind.
    pub operations: BTreeMap<String, Totals>,
    /// Breaches of the contract, the first one first.
    pub breaches: Vec<Breach>,
}

impl Report {
    pub(crate) fn new(title: String, seed: u64) -> Self {
        Self { title, seed, ..Self::default() }
    }

    /// Whether the contract held.
    pub fn is_flawless(&self) -> bool {
        self.breaches.is_empty()
    }

    pub(crate) fn add(&mut self, clients: &[ClientInfo], records: &[Record]) {
        for record in records {
            let (client, operation) = (&clients[record.client], &record.operation);
            let task = &client.tasks[operation.task];
            let what = match (&task.name, task.address) {
                (None, _) => "",
                (Some(_), Some(_)) => " mapped",
                (Some(_), None) => " unrelated",
            };
            let key = format!("{} {}{what}", client.name, task.kind);
            let totals = self.operations.entry(key).or_default();
            totals.count += 1;
            if operation.outcome == Outcome::Right {
                totals.right += 1;
                totals.times_us.push(u32::try_from(operation.took_us).unwrap_or(u32::MAX));
            } else {
                totals.failed += 1;
            }
        }
    }

    pub(crate) fn fault(&mut self, text: String) {
        *self.faults.entry(text).or_default() += 1;
    }

    pub(crate) fn breach(&mut self, violation: Violation, timeline: &Timeline, started_us: u64) {
        let seconds = |at_us: u64| at_us.saturating_sub(started_us) as f64 / 1e6;
        let trace = timeline.trace(violation.at_us, CALM_US).into_iter().map(|interval| {
            let end = match interval.to_us {
                Some(to_us) if to_us <= violation.at_us => format!("to {:.2} s", seconds(to_us)),
                _ => "still active".to_owned(),
            };
            format!("{:9.2} s  {} ({end})", seconds(interval.from_us), interval.text)
        });
        self.breaches.push(Breach {
            rule: violation.rule,
            at: seconds(violation.at_us),
            text: violation.text,
            trace: trace.collect(),
        });
    }

    pub(crate) fn finish(&mut self, seconds: f64) {
        self.seconds = seconds;
        for totals in self.operations.values_mut() {
            totals.times_us.sort_unstable();
            let times = std::mem::take(&mut totals.times_us);
            let at = |percent: usize| {
                times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0)
            };
            (totals.p99_us, totals.slowest_us) = (at(99).into(), at(100).into());
        }
    }

    /// Operations of clients whose key contains this word.
    pub fn count(&self, word: &str) -> u64 {
        let of = |(key, totals): (&String, &Totals)| key.contains(word).then_some(totals.count);
        self.operations.iter().filter_map(of).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: u64 = self.operations.values().map(|totals| totals.count).sum();
        let faults: u64 = self.faults.values().sum();
        writeln!(
            formatter,
            "{}, seed {}: {:.0} s, {faults} faults, {all} operations, {}",
            self.title,
            self.seed,
            self.seconds,
            match self.breaches.len() {
                0 => "the contract held".to_owned(),
                1 => "1 breach of the contract".to_owned(),
                many => format!("{many} breaches of the contract"),
            }
        )?;
        writeln!(
            formatter,
            "\n{:28} {:>9} {:>8} {:>8} {:>9} {:>9}",
            "operations", "count", "a second", "excused", "p99 ms", "worst ms"
        )?;
        for (key, totals) in &self.operations {
            writeln!(
                formatter,
                "{key:28} {:>9} {:>8.0} {:>8} {:>9.1} {:>9.1}",
                totals.count,
                totals.count as f64 / self.seconds.max(0.001),
                totals.failed,
                totals.p99_us as f64 / 1e3,
                totals.slowest_us as f64 / 1e3,
            )?;
        }
        let faults: Vec<String> =
            self.faults.iter().map(|(text, count)| format!("{count} × {text}")).collect();
        writeln!(formatter, "\nfaults: {}", faults.join(", "))?;
        for breach in self.breaches.iter().take(SHOWN) {
            writeln!(formatter, "\nbroken at {:.2} s: {}", breach.at, breach.rule)?;
            writeln!(formatter, "  {}", breach.text)?;
            for line in &breach.trace {
                writeln!(formatter, "  {line}")?;
            }
        }
        if self.breaches.len() > SHOWN {
            writeln!(formatter, "\nand {} more", self.breaches.len() - SHOWN)?;
        }
        if !self.is_flawless() {
            writeln!(formatter, "\nplay it again with --seed {}", self.seed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::fake::{S, client, record};
    use crate::fault::Condition;

    #[test]
    fn a_breach_is_shown_with_seed_and_what_led_up_to_it() {
        let mut timeline = Timeline::default();
        for (from, to, text) in [(1, 2, "step 0: agent killed"), (30, 35, "step 1: lb1 killed")] {
            let number = timeline.begin(from * S, Some(Condition::Uplink), text.to_owned());
            timeline.end(number, to * S);
        }
        let mut report = Report::new("mixed".to_owned(), 77);
        report.add(&client("1/connect/198.18.0.1:8080"), &[record(31.0, Outcome::Right, "lb1")]);
        report.fault("lb1 killed".to_owned());
        let violation =
            Violation { rule: Rule::PeerName, at_us: 31 * S, text: "pod: connect".to_owned() };
        report.breach(violation, &timeline, 0);
        report.finish(60.0);
        let text = report.to_string();
        assert!(text.contains("1 breach") && text.contains("--seed 77"), "{text}");
        assert!(text.contains("30.00 s  step 1: lb1 killed (still active)"), "{text}");
        assert!(!text.contains("agent killed"), "{text}");
        assert_eq!(report.operations["pod connect"].slowest_us, S / 10);
    }
}
