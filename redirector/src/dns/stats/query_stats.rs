//! What queries asked for, what upstreams said, and how long it took. The types and codes that have
//! a place of their own are fixed: what clients and upstreams choose makes no new one.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::dns::wire::{self, Header};

/// Types of questions that are counted apart, with their numbers; then come all others, and queries
/// that have no question to read.
const TYPES: [(&str, u16); 9] = [
    ("A", 1),
    ("NS", 2),
    ("SOA", 6),
    ("PTR", 12),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("HTTPS", 65),
    ("ANY", 255),
];
const OTHER_TYPE: usize = TYPES.len();
const UNREADABLE: usize = OTHER_TYPE + 1;
/// Response codes of upstreams that are counted apart, with their numbers; then come all others.
const CODES: [(&str, u16); 6] = [
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
];
const OTHER: &str = "other";

/// Upper bounds of the classes that times fall into, in microseconds: a local answer takes some, a
/// round trip through the Internet 100,000.
const BOUNDS: [u64; 18] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 5_000_000,
];

/// Times of one kind, counted by class.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// By class; the last one has no upper bound.
    classes: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// Times of one kind, as they were counted since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    /// Sum of all times, in seconds.
    pub seconds: f64,
    /// For each class its upper bound in seconds, the last one infinite, and how many times fell
    /// into it alone.
    pub classes: Vec<(f64, u64)>,
}

/// Counts by type, code and time.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    types: [AtomicU64; UNREADABLE + 1],
    codes: [AtomicU64; CODES.len() + 1],
    /// From a batch of queries that was read to its replies sent, for each reply of ours.
    pub(crate) local: Times,
    /// From a query that was read to the upstream's reply, or the failure to get one.
    pub(crate) forwarded: Times,
}

/// What was counted since the start.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct DnsTally {
    /// Queries by the type that they asked for; together they are all.
    pub types: Vec<(&'static str, u64)>,
    /// Replies of upstreams that were passed on, by response code.
    pub codes: Vec<(&'static str, u64)>,
    /// How long our own answers took.
    pub local: Latency,
    /// How long forwarded queries took.
    pub forwarded: Latency,
}

impl Times {
    /// Counts so many times of the same length.
    pub(crate) fn add(&self, time: Duration, number: u64) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let class = BOUNDS.partition_point(|bound| *bound < micros);
        self.classes[class].fetch_add(number, Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanos.saturating_mul(number), Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Latency {
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        let classes = bounds.zip(self.classes.iter().map(|class| class.load(Relaxed))).collect();
        Latency { seconds: self.nanoseconds.load(Relaxed) as f64 / 1e9, classes }
    }
}

impl Latency {
    /// How many times there were.
    pub fn number(&self) -> u64 {
        self.classes.iter().map(|(_, number)| number).sum()
    }
}

impl Tally {
    /// Counts a query by its type.
    pub(crate) fn asked(&self, query: &[u8]) {
        let place = wire::asked_type(query).map_or(UNREADABLE, |kind| {
            TYPES.iter().position(|(_, number)| *number == kind).unwrap_or(OTHER_TYPE)
        });
        self.types[place].fetch_add(1, Relaxed);
    }

    /// Counts an upstream's reply by its code.
    pub(crate) fn passed_on(&self, reply: &[u8]) {
        let code = Header::read(reply).map(|header| header.rcode());
        let place =
            CODES.iter().position(|(_, number)| Some(*number) == code).unwrap_or(CODES.len());
        self.codes[place].fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> DnsTally {
        let read = |names: &mut dyn Iterator<Item = &'static str>, counts: &[AtomicU64]| {
            names.zip(counts.iter().map(|count| count.load(Relaxed))).collect()
        };
        DnsTally {
            types: read(
                &mut TYPES.iter().map(|(name, _)| *name).chain([OTHER, "unreadable"]),
                &self.types,
            ),
            codes: read(&mut CODES.iter().map(|(name, _)| *name).chain([OTHER]), &self.codes),
            local: self.local.snapshot(),
            forwarded: self.forwarded.snapshot(),
        }
    }
}

#[cfg(test)]
impl DnsTally {
    /// Three AAAA, of which two were NXDOMAIN, in a quarter of a millisecond and in ten seconds.
    pub(crate) fn example() -> Self {
        let tally = Tally::default();
        (0..3).for_each(|_| tally.asked(&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 28, 0, 1]));
        (0..2).for_each(|_| tally.passed_on(&[0, 1, 0x81, 0x83, 0, 0, 0, 0, 0, 0, 0, 0]));
        tally.forwarded.add(Duration::from_micros(250), 1);
        tally.forwarded.add(Duration::from_secs(10), 1);
        tally.snapshot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_class_whose_upper_bound_it_does_not_exceed() {
        let times = Times::default();
        for micros in [0, 10, 11, 25, 5_000_000, 5_000_001] {
            times.add(Duration::from_micros(micros), 2);
        }
        let Latency { seconds, classes } = times.snapshot();
        let full: Vec<_> = classes.iter().filter(|(_, number)| *number > 0).copied().collect();
        assert_eq!(full, [(1e-5, 4), (2.5e-5, 4), (5.0, 2), (f64::INFINITY, 2)]);
        assert!((seconds - 20.000_094).abs() < 1e-9, "{seconds}");
    }

    #[test]
    fn types_that_clients_invent_share_one_place() {
        let tally = Tally::default();
        let query = |kind: u16| {
            [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 0][..], &kind.to_be_bytes(), &[0, 1]]
                .concat()
        };
        (0..=u16::MAX).for_each(|kind| tally.asked(&query(kind)));
        tally.asked(&[]);
        tally.asked(&query(1)[..14]);
        let types = tally.snapshot().types;
        assert_eq!(types[..2], [("A", 1), ("NS", 1)]);
        assert_eq!(types[TYPES.len()..], [("other", 65_536 - 9), ("unreadable", 2)]);
    }
}
