//! A destination that the agent follows, and its addresses.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use jiff::Timestamp;

use super::address_policy::RejectedAddress;
use crate::route::Destination;

/// A destination to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name, or the literal addresses.
    pub destination: Destination,
    /// The server to query for the name; the follower's upstreams if `None`.
    pub resolver: Option<SocketAddr>,
}

/// The addresses of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Without duplicates, at most 64; IPv4 ones first, each family sorted.
    pub addresses: Vec<IpAddr>,
    /// Further addresses, for which a route has no room.
    pub left_out: Vec<IpAddr>,
    /// Addresses of the name's last answer that are never used.
    pub rejected: Vec<RejectedAddress>,
    /// How current they are.
    pub freshness: Freshness,
    /// When they were looked up; for an unresolved target, since when look-ups have been made.
    pub resolved_at: Timestamp,
    /// How long an answer is valid, without jitter; the longest time for a literal address.
    pub ttl: Duration,
}

impl Resolved {
    /// Whether they are the last answer, usable by every executor, and complete: then there is
    /// nothing to report about them.
    pub fn is_unremarkable(&self) -> bool {
        self.is_current()
            && self.addresses.first().is_some_and(IpAddr::is_ipv4)
            && self.rejected.is_empty()
            && self.left_out.is_empty()
    }

    /// Whether they are literal, or the last answer.
    pub fn is_current(&self) -> bool {
        matches!(self.freshness, Freshness::Literal | Freshness::Fresh)
    }

    /// Whether the subscribers of a follower see no difference.
    pub(super) fn is_equivalent(&self, other: &Self) -> bool {
        self.addresses == other.addresses && self.freshness == other.freshness
    }
}

/// How current the addresses of a target are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Literal addresses, which never change.
    Literal,
    /// From the last look-up. No addresses: the name authoritatively has none.
    Fresh,
    /// From an earlier look-up; the last one failed, or there was none since the start.
    Stale {
        /// Why there are no newer ones.
        error: String,
    },
    /// Not known yet.
    Unresolved {
        /// Why not; `None` until the first look-up has ended.
        error: Option<String>,
    },
}
