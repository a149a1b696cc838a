//! Rules of growth: what is used must be given back.

use super::contract::Rule;
use crate::history::Sample;

/// An agent settles for this long before it is compared with itself.
const SETTLE_US: u64 = 20_000_000;
/// An agent must live for this long beyond it.
const LIFE_US: u64 = 40_000_000;

/// A limit of growth: what is read, and how much more is allowed in absolute terms and in percent.
struct Limit {
    what: &'static str,
    read: fn(&Sample) -> u64,
    more: u64,
    percent: u64,
}

impl Limit {
    fn exceeded(&self, before: u64, after: u64) -> Option<String> {
        let most = before + self.more.max(before * self.percent / 100);
        (after > most).then(|| format!("{}: from {before} to {after}, at most {most}", self.what))
    }
}

/// Of one agent while it lives. Attacks use descriptors and memory, up to the agent's own limits.
const ALIVE: [Limit; 3] = [
    Limit { what: "memory (KiB)", read: |at| at.memory_kib, more: 24 << 10, percent: 40 },
    Limit { what: "descriptors", read: |at| at.descriptors, more: 16, percent: 10 },
    Limit { what: "memory of maps (KiB)", read: |at| at.map_kib, more: 4 << 10, percent: 20 },
];

/// Between the calm before the first fault and the calm after the last one.
const SETTLED: [Limit; 5] = [
    Limit { what: "memory (KiB)", read: |at| at.memory_kib, more: 24 << 10, percent: 40 },
    Limit { what: "descriptors", read: |at| at.descriptors, more: 8, percent: 0 },
    Limit { what: "memory of maps (KiB)", read: |at| at.map_kib, more: 4 << 10, percent: 20 },
    Limit { what: "sockets", read: |at| at.sockets, more: 12, percent: 0 },
    Limit { what: "pins", read: |at| at.pins, more: 0, percent: 0 },
];

/// Compares the lowest readings at the beginning and at the end of each agent's life: a peak is not
/// growth.
pub(crate) fn check(samples: &[Sample]) -> Vec<(Rule, String)> {
    let mut found = Vec::new();
    let mut rest = samples;
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|sample| sample.pid == first.pid).count();
        let (life, next) = rest.split_at(same);
        rest = next;
        let begin = first.at_us + SETTLE_US;
        let end = life.last().map_or(0, |last| last.at_us);
        if end < begin + LIFE_US {
            continue;
        }
        let quarter = (end - begin) / 4;
        let early = life.iter().filter(|at| at.at_us >= begin && at.at_us <= begin + quarter);
        let late = life.iter().filter(|at| at.at_us >= end - quarter);
        for limit in &ALIVE {
            let (before, after) = (early.clone().map(limit.read), late.clone().map(limit.read));
            let (before, after) = (before.min().unwrap_or(0), after.min().unwrap_or(0));
            if let Some(text) = limit.exceeded(before, after) {
                found.push((Rule::NothingGrows, format!("agent {}: {text}", first.pid)));
            }
        }
    }
    found
}

/// Compares the calm before the first fault with the calm after the last one. `after` may be read
/// again and again until it returns nothing, or for as long as is acceptable.
pub(crate) fn settled(before: Sample, after: Sample) -> Vec<(Rule, String)> {
    let exceeded = |limit: &Limit| limit.exceeded((limit.read)(&before), (limit.read)(&after));
    SETTLED.iter().filter_map(exceeded).map(|text| (Rule::NothingGrows, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(pid: u32, seconds: u64, grow: impl Fn(&mut Sample, u64)) -> Vec<Sample> {
        let sample = |second: u64| {
            let mut sample = Sample {
                at_us: second * 1_000_000,
                pid,
                memory_kib: 30_000,
                descriptors: 60,
                map_kib: 20_000,
                sockets: 40,
                pins: 80,
            };
            grow(&mut sample, second);
            sample
        };
        (0..seconds).map(sample).collect()
    }

    #[test]
    fn steady_growth_of_one_agent_is_found() {
        type Grow = fn(&mut Sample, u64);
        let growing: [(&str, Grow); 3] = [
            ("memory (KiB)", |at, second| at.memory_kib += 400 * second),
            ("descriptors", |at, second| at.descriptors += second),
            ("memory of maps (KiB)", |at, second| at.map_kib += 100 * second),
        ];
        for (what, grow) in growing {
            let found = check(&life(7, 120, grow));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].1.contains(what), "{found:?}");
        }
    }

    #[test]
    fn a_peak_or_another_agent_is_no_growth() {
        let peak = life(7, 120, |at, second| at.descriptors += 100 * u64::from(second % 30 < 20));
        assert!(check(&peak).is_empty());
        let larger = life(8, 120, |at, _| at.memory_kib += 100_000);
        assert!(check(&[life(7, 120, |_, _| ()), larger].concat()).is_empty());
    }

    #[test]
    fn what_is_not_given_back_in_the_end_is_found() {
        let before = life(7, 1, |_, _| ())[0];
        assert!(settled(before, before).is_empty());
        type Keep = fn(&mut Sample);
        let kept: [Keep; 5] = [
            |at| at.memory_kib += 50_000,
            |at| at.descriptors += 20,
            |at| at.map_kib += 9_000,
            |at| at.sockets += 20,
            |at| at.pins += 1,
        ];
        for keep in kept {
            let mut after = before;
            keep(&mut after);
            assert_eq!(settled(before, after).len(), 1, "{after:?}");
        }
    }
}
