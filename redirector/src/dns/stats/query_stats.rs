//! Queries by type, upstream replies by response code, and the latency of answers. The types and
//! codes with a count of their own are fixed, so that neither clients nor upstreams can add metric
//! labels.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::histogram::{Histogram, HistogramSnapshot};
use crate::dns::wire::{Header, question_type};

/// Query types with a count of their own. The counts after them are for all other types, and for
/// queries without a readable question.
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
/// Response codes with a count of their own. The count after them is for all others.
const CODES: [(&str, u16); 6] = [
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
];
const OTHER: &str = "other";

/// Counts by type, code and time.
#[derive(Debug, Default)]
pub(crate) struct QueryStats {
    types: [AtomicU64; UNREADABLE + 1],
    codes: [AtomicU64; CODES.len() + 1],
    /// From reading a batch of queries to sending its replies, once for each reply of ours.
    pub(crate) local_latency: Histogram,
    /// From reading a query to the upstream's reply, or the failure to get one.
    pub(crate) forward_latency: Histogram,
}

/// The counts at one time.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct QueryStatsSnapshot {
    /// All queries by type.
    pub types: Vec<(&'static str, u64)>,
    /// Upstream replies that were passed on, by response code.
    pub codes: Vec<(&'static str, u64)>,
    /// Latency of our own answers.
    pub local_latency: HistogramSnapshot,
    /// Latency of forwarded queries.
    pub forward_latency: HistogramSnapshot,
}

impl QueryStats {
    /// Counts a query by its type.
    pub(crate) fn count_query(&self, query: &[u8]) {
        let index = question_type(query).map_or(UNREADABLE, |qtype| {
            TYPES.iter().position(|(_, number)| *number == qtype).unwrap_or(OTHER_TYPE)
        });
        self.types[index].fetch_add(1, Relaxed);
    }

    /// Counts an upstream's reply by its code.
    pub(crate) fn count_upstream_reply(&self, reply: &[u8]) {
        let code = Header::parse(reply).map(|header| header.rcode());
        let index =
            CODES.iter().position(|(_, number)| Some(*number) == code).unwrap_or(CODES.len());
        self.codes[index].fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> QueryStatsSnapshot {
        let read = |names: &mut dyn Iterator<Item = &'static str>, counts: &[AtomicU64]| {
            names.zip(counts.iter().map(|count| count.load(Relaxed))).collect()
        };
        QueryStatsSnapshot {
            types: read(
                &mut TYPES.iter().map(|(name, _)| *name).chain([OTHER, "unreadable"]),
                &self.types,
            ),
            codes: read(&mut CODES.iter().map(|(name, _)| *name).chain([OTHER]), &self.codes),
            local_latency: self.local_latency.snapshot(),
            forward_latency: self.forward_latency.snapshot(),
        }
    }
}

#[cfg(test)]
impl QueryStatsSnapshot {
    /// Three AAAA queries, of which two were NXDOMAIN, one in 250 µs and one in ten seconds.
    pub(crate) fn example() -> Self {
        use std::time::Duration;
        const AAAA: [u8; 17] = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 28, 0, 1];
        const NXDOMAIN: [u8; 12] = [0, 1, 0x81, 0x83, 0, 0, 0, 0, 0, 0, 0, 0];
        let stats = QueryStats::default();
        (0..3).for_each(|_| stats.count_query(&AAAA));
        (0..2).for_each(|_| stats.count_upstream_reply(&NXDOMAIN));
        stats.forward_latency.record(Duration::from_micros(250), 1);
        stats.forward_latency.record(Duration::from_secs(10), 1);
        stats.snapshot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_query_types_share_one_count() {
        let stats = QueryStats::default();
        let query = |qtype: u16| {
            [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 0][..], &qtype.to_be_bytes(), &[0, 1]]
                .concat()
        };
        (0..=u16::MAX).for_each(|qtype| stats.count_query(&query(qtype)));
        stats.count_query(&[]);
        stats.count_query(&query(1)[..14]);
        let types = stats.snapshot().types;
        assert_eq!(types[..2], [("A", 1), ("NS", 1)]);
        assert_eq!(types[TYPES.len()..], [("other", 65_536 - 9), ("unreadable", 2)]);
    }

    #[test]
    fn unknown_codes_of_upstreams_share_one_count() {
        let stats = QueryStats::default();
        let reply = |code: u8| [0, 1, 0x81, 0x80 | code, 0, 0, 0, 0, 0, 0, 0, 0];
        (0..16).for_each(|code| stats.count_upstream_reply(&reply(code)));
        let codes = stats.snapshot().codes;
        assert_eq!(codes[4..], [("NOTIMP", 1), ("REFUSED", 1), ("other", 10)]);
    }
}
