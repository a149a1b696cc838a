//! What the shim counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::query_stats::Tally;
use crate::dns::local::Kind;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// What the shim did since it was bound. `queries` is, once all are done, the sum of
        /// `answered`, `nodata`, `forwarded`, `servfail`, `formerr`, `notimp`, `refused`,
        /// `pending`, `limited` and `dropped`; the others say more about some of these.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        #[non_exhaustive]
        pub struct DnsCounters { $($(#[$doc])* pub $name: u64,)+ }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)+
            /// The same queries by type, code and time.
            pub(crate) tally: Tally,
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> DnsCounters {
                DnsCounters { $($name: self.$name.load(Relaxed),)+ }
            }
        }
    };
}

counters! {
    /// Received over UDP and TCP.
    queries,
    /// Answered with a record of ours.
    answered,
    /// Answered by us with no record of the asked type.
    nodata,
    /// Answered by an upstream.
    forwarded,
    /// No upstream answered: SERVFAIL.
    servfail,
    /// Unreadable, or of an unknown EDNS version: FORMERR or BADVERS.
    formerr,
    /// An opcode other than QUERY: NOTIMP.
    notimp,
    /// CHAOS questions, zone transfers and clients that are not in `dns.clients`: REFUSED.
    refused,
    /// A source whose VIP led nowhere yet, or, for a client that gets real addresses, without any:
    /// SERVFAIL.
    pending,
    /// Got no answer, since the client asked more than its share.
    limited,
    /// Got no answer: not a query, or shorter than a header.
    dropped,
    /// Replies to forwarded queries that could not be sent (these are in `forwarded` or `servfail`,
    /// too).
    unsent,
    /// No upstream answered in time (these are in `servfail`, too).
    timeouts,
    /// Too many queries were waiting for upstreams (these are in `servfail`, too).
    overloaded,
    /// Replies of upstreams that did not fit their query and were ignored.
    mismatched,
    /// Queries of clients that are not in `dns.clients` (these are in `refused` or `limited`, too).
    strangers,
    /// Too many queries of one client were waiting for upstreams (these are in `overloaded` and
    /// `servfail`, too).
    hogged,
    /// TCP connections that were closed because there were too many, of one client or of all.
    connections_refused,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Counts an answer of ours.
    pub(crate) fn replied(&self, kind: Kind) {
        Self::count(match kind {
            Kind::Answered => &self.answered,
            Kind::NoData => &self.nodata,
            Kind::FormErr => &self.formerr,
            Kind::NotImp => &self.notimp,
            Kind::Refused => &self.refused,
            Kind::Pending => &self.pending,
        });
    }
}
