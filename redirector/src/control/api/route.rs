//! The shapes of routes: `/v1/routes`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use redirector_common::stats::LATENCY_BUCKETS;
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::control::api::version::VERSION;
use crate::route::{RawRoute, RouteOrigin, SourceName};

/// `GET /v1/routes`, `redirector route list -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteList {
    /// [`VERSION`].
    pub version: u32,
    /// Every route, by source.
    pub routes: Vec<RouteView>,
}

/// `GET /v1/routes/{source}`, `redirector route show -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteShow {
    /// [`VERSION`].
    pub version: u32,
    /// The route.
    pub route: RouteView,
}

/// A route as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteView {
    /// The internal name; null when only the kernel knows the route and its name can't be told.
    pub source: Option<SourceName>,
    /// Its virtual address.
    pub vip: VipView,
    /// Which hand made it: `file`, `command_line` or `import`; null without an agent.
    pub origin: Option<RouteOrigin>,
    /// What was configured, in the shape of `[[routes]]`; null without an agent.
    pub definition: Option<RawRoute>,
    /// Whether the kernel has it and DNS answers it; without an agent: whether the kernel has it.
    pub live: bool,
    /// How its addresses are known; null without an agent.
    pub resolution: Option<Resolution>,
    /// The addresses that the kernel chooses from.
    pub backends: Vec<BackendView>,
    /// What became of its connects; null when the kernel does not have it.
    pub counters: Option<Counters>,
}

/// A route's virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipView {
    /// Its place in the pool.
    pub index: u32,
    /// The address that A queries are answered with.
    pub ipv4: Option<Ipv4Addr>,
    /// The address that AAAA queries are answered with, when the pool has an IPv6 range.
    pub ipv6: Option<Ipv6Addr>,
}

/// How a route's addresses are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// One word.
    pub state: ResolutionState,
    /// Why the state is `kept` or `unresolved`, if that is known.
    pub error: Option<String>,
    /// When the addresses were learned; null while there are none.
    pub resolved_at: Option<jiff::Timestamp>,
    /// For how many seconds the answer was said to hold; null for literal addresses.
    pub ttl_seconds: Option<u64>,
}

/// How a route's addresses are known, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolutionState {
    /// The route names addresses.
    Literal,
    /// The resolver's own last answer.
    Fresh,
    /// The resolver fails; these are the last good ones.
    Stale,
    /// There never was an answer.
    Unresolved,
}

/// One address of a route's destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendView {
    /// The address.
    pub address: IpAddr,
    /// Whether connects go to it.
    pub state: BackendState,
    /// Failures in a row; 0 when it is eligible.
    pub failures: u32,
    /// Milliseconds until the kernel tries it again by itself; null when it is eligible.
    pub retry_in_ms: Option<u64>,
    /// What became of connects to it.
    pub counters: Option<BackendCounters>,
}

/// Whether connects go to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// They do.
    Eligible,
    /// It failed lately; connects go to others while there are any.
    Ejected,
}

/// What became of a route's connects since it got its virtual address. `started` is the sum of the
/// six ends and what is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Connects that were redirected.
    pub started: u64,
    /// Connects that a backend accepted.
    pub established: u64,
    /// Connects that a backend refused.
    pub refused: u64,
    /// Connects that were not answered.
    pub timed_out: u64,
    /// Connects that the network reported as undeliverable.
    pub unreachable: u64,
    /// Connects that the application gave up.
    pub aborted: u64,
    /// Connects that never left this host.
    pub unsent: u64,
    /// Established connections that have ended since.
    pub closed: u64,
    /// Connects refused here, at once: a port that the route does not list, or no backend.
    pub denied: u64,
    /// Connects left alone, by `on_no_backend = "pass"`.
    pub passed: u64,
    /// Connects sent to a backend that is set aside, since all were.
    pub all_ejected: u64,
    /// Nanoseconds from connect to established, summed over the established ones.
    pub connect_ns: u64,
    /// Bytes received on connections that have ended.
    pub rx_bytes: u64,
    /// Bytes acknowledged on connections that have ended.
    pub tx_bytes: u64,
    /// Segments sent again on connections that have ended.
    pub retransmitted: u64,
    /// Connects that could not be made from the route's source address, and went out from the
    /// kernel's choice.
    pub source_ip_failed: u64,
    /// Smoothed round-trip times at the end of connections, in microseconds, summed over the closed
    /// ones.
    pub srtt_us: u64,
    /// The established ones by the time that it took: less than 2^17 ns, then less than twice as
    /// long each, up to 2^30 ns; all the rest.
    pub latency: [u64; LATENCY_BUCKETS],
}

impl Counters {
    /// Connections that are established now.
    pub fn open(&self) -> u64 {
        self.established.saturating_sub(self.closed)
    }
}

/// What became of the connects to one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendCounters {
    /// Connects that were sent here.
    pub started: u64,
    /// Connects that it accepted.
    pub established: u64,
    /// Connects that it refused.
    pub refused: u64,
    /// Connects that were not answered.
    pub timed_out: u64,
    /// Connects that the network reported as undeliverable.
    pub unreachable: u64,
    /// Connects that the application gave up.
    pub aborted: u64,
    /// Connects that never left this host.
    pub unsent: u64,
    /// Established connections that have ended since.
    pub closed: u64,
    /// Nanoseconds from connect to established, summed over the established ones.
    pub connect_ns: u64,
    /// Smoothed round-trip times at the end of connections, in microseconds, summed over the closed
    /// ones.
    pub srtt_us: u64,
}
