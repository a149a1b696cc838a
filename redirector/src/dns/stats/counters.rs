//! The shim's counters, each declared once.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::query_stats::QueryStats;
use crate::dns::local::ReplyKind;

macro_rules! counters {
    (
        total { $(#[$total_doc:meta])* $total:ident }
        outcomes { $($(#[$outcome_doc:meta])* $outcome:ident,)+ }
        incidents { $($(#[$incident_doc:meta])* $incident:ident,)+ }
    ) => {
        /// What the shim did since it was bound. Once no query is under way, `queries` is the sum
        /// of the outcomes; an incident details some of them.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct DnsCounters {
            $(#[$total_doc])*
            pub $total: u64,
            $($(#[$outcome_doc])* pub $outcome: u64,)+
            $($(#[$incident_doc])* pub $incident: u64,)+
        }

        impl DnsCounters {
            /// The names of the counters that each query is counted in one of.
            pub const OUTCOMES: &[&str] = &[$(stringify!($outcome)),+];
        }

        impl From<DnsCounters> for BTreeMap<String, u64> {
            fn from(counters: DnsCounters) -> Self {
                [
                    (stringify!($total), counters.$total),
                    $((stringify!($outcome), counters.$outcome),)+
                    $((stringify!($incident), counters.$incident),)+
                ]
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            pub(crate) $total: Counter,
            $(pub(crate) $outcome: Counter,)+
            $(pub(crate) $incident: Counter,)+
            /// The same queries by type, code and time.
            pub(crate) stats: QueryStats,
        }

        impl From<&Counters> for DnsCounters {
            fn from(counters: &Counters) -> Self {
                Self {
                    $total: counters.$total.get(),
                    $($outcome: counters.$outcome.get(),)+
                    $($incident: counters.$incident.get(),)+
                }
            }
        }
    };
}

/// A number of events.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

counters! {
    total {
        /// Received over UDP and TCP.
        queries
    }
    outcomes {
        /// Answered with a record of ours.
        answered,
        /// Answered by us without a record of the question's type.
        nodata,
        /// Answered by an upstream.
        forwarded,
        /// SERVFAIL: no upstream answered.
        servfail,
        /// FORMERR or BADVERS: unreadable, or of an unknown EDNS version.
        formerr,
        /// NOTIMP: an opcode other than QUERY.
        notimp,
        /// REFUSED: CHAOS questions, zone transfers and clients that are not in `dns.clients`.
        refused,
        /// SERVFAIL: the source's virtual address is not translated yet, or a client that gets real
        /// addresses asked for a source without any.
        pending,
        /// Not answered: the client exceeded its rate limit.
        rate_limited,
        /// Not answered: not a query, or shorter than a header.
        dropped,
    }
    incidents {
        /// Replies to forwarded queries that could not be sent (also in `forwarded` or `servfail`).
        unsent,
        /// No upstream answered in time (also in `servfail`).
        timeouts,
        /// Too many queries were waiting for upstreams (also in `servfail`).
        overloaded,
        /// Upstream replies that did not match their query and were ignored.
        mismatched,
        /// Queries of clients that are not in `dns.clients` (also in `refused` or `rate_limited`).
        denied_clients,
        /// Too many queries of one client were waiting for upstreams (also in `overloaded` and
        /// `servfail`).
        client_over_limit,
        /// TCP connections closed at once, since one client or all of them had too many.
        connections_refused,
    }
}

impl Counters {
    /// Counts a reply of ours.
    pub(crate) fn count_reply(&self, kind: ReplyKind) {
        let counter = match kind {
            ReplyKind::Answered => &self.answered,
            ReplyKind::NoData => &self.nodata,
            ReplyKind::FormErr => &self.formerr,
            ReplyKind::NotImp => &self.notimp,
            ReplyKind::Refused => &self.refused,
            ReplyKind::Pending => &self.pending,
        };
        counter.increment();
    }
}
