//! Where routes lead: the addresses behind each destination, followed as its name changes, and
//! whether one answers.
//!
//! Names are asked for as they stand (no search domains, no hosts file), A and AAAA both, with
//! CNAMEs followed. The rules: an answer counts for its TTL, within 1 s and 5 min; a failure keeps
//! what was known; only an authoritative "no such address", three times in a row, empties a route.
//! What must not happen here: choosing among addresses, which is the datapath's.

mod address_cache;
mod follower;
mod lookup;
mod marked_runtime;
mod probe;
mod resolution;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use jiff::Timestamp;

pub use address_cache::BackendError;
pub use follower::{Follower, FollowerSettings, Known};
pub use probe::probe;

use crate::route::Destination;

/// What a route wants followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name, or the addresses themselves.
    pub destination: Destination,
    /// Who is asked about the name; the follower's upstreams when there is none.
    pub resolver: Option<SocketAddr>,
}

/// What is known about a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its addresses, sorted, each once, at most 64.
    pub addresses: Vec<IpAddr>,
    /// How good that knowledge is.
    pub freshness: Freshness,
    /// When the addresses were learned; for an unresolved target, since when it has been tried.
    pub resolved_at: Timestamp,
    /// For how long an answer counts, jitter aside; the longest time for a literal address.
    pub ttl: Duration,
}

/// How good the addresses of a target are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Literal addresses, which never change.
    Fixed,
    /// The last look-up gave them; no addresses means that the name authoritatively has none.
    Fresh,
    /// Good ones from before, kept because the last look-up failed or has not been made since the
    /// start.
    Kept {
        /// What went wrong.
        error: String,
    },
    /// Not known yet.
    Unresolved {
        /// What went wrong; nothing before the first look-up has ended.
        error: Option<String>,
    },
}
