//! The shapes of routes: `/v1/routes`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::control::api::version::VERSION;
use crate::{
    datapath::{BackendCounters, RouteCounters},
    route::{RawRoute, RouteOrigin, SourceName},
};

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
    pub counters: Option<RouteCounters>,
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
