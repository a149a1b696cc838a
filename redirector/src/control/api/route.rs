//! The shapes of routes: `/v1/routes`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::control::api::version::VERSION;
use crate::{
    datapath::{BackendCounters, EjectionCause, RouteCounters},
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
    /// The internal name; null when only the kernel has the route and its name is unknown.
    pub source: Option<SourceName>,
    /// Its virtual address.
    pub vip: VipView,
    /// Its origin: `cluster`, `file`, `command_line` or `import`; null without an agent.
    pub origin: Option<RouteOrigin>,
    /// Its definition, in the shape of `[[routes]]`; null without an agent.
    pub definition: Option<RawRoute>,
    /// Whether the kernel has it and DNS answers it; without an agent, whether the kernel has it.
    pub live: bool,
    /// How its addresses were resolved; null without an agent.
    pub resolution: Option<Resolution>,
    /// The addresses that the kernel selects from.
    pub backends: Vec<BackendView>,
    /// The counters of its connects; null when the kernel does not have it.
    pub counters: Option<RouteCounters>,
    /// Queries for the source that were answered.
    #[serde(default)]
    pub answers: AnswerCounts,
}

/// Queries for a source that were answered, by who did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerCounts {
    /// In the kernel, since the maps were created.
    pub packet: u64,
    /// By the shim, since the agent started.
    pub shim: u64,
}

impl RouteView {
    /// Whether IPv4 sockets are all that reach the virtual address, and the route has only IPv6
    /// backends: then executors cannot use it.
    pub fn lacks_usable_family(&self) -> bool {
        !self.backends.is_empty()
            && self.vip.ipv6.is_none()
            && self.backends.iter().all(|backend| backend.address.is_ipv6())
    }
}

/// A route's virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipView {
    /// Its index in the pool.
    pub index: u32,
    /// The address that A queries are answered with.
    pub ipv4: Option<Ipv4Addr>,
    /// The address that AAAA queries are answered with, when the pool has an IPv6 range.
    pub ipv6: Option<Ipv6Addr>,
}

/// How a route's addresses were resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// The state in one word.
    pub state: ResolutionState,
    /// Why the state is `stale` or `unresolved`, if that is known.
    pub error: Option<String>,
    /// When the addresses were resolved; null while there are none.
    pub resolved_at: Option<jiff::Timestamp>,
    /// The TTL of the answer in seconds; null for literal addresses.
    pub ttl_seconds: Option<u64>,
    /// Addresses in the answer that no route uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedAddress>,
    /// Addresses in the answer for which a route has no room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<IpAddr>,
}

/// An address to which a name must not lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedAddress {
    /// The address.
    pub address: IpAddr,
    /// What it is, such as `loopback`.
    pub reason: String,
}

/// How a route's addresses were resolved, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolutionState {
    /// The destination is literal addresses.
    Literal,
    /// They are the resolver's last answer.
    Fresh,
    /// The resolver fails; they are the last good ones.
    Stale,
    /// There was no answer yet.
    Unresolved,
}

/// One address of a route's destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendView {
    /// The address.
    pub address: IpAddr,
    /// Whether connects use it.
    pub state: BackendState,
    /// What it is ejected for: `connect` (connects failed) or `reset` (it accepts connects, and
    /// resets the connections before a byte arrives); null when it is eligible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<EjectionCause>,
    /// Consecutive failures, up to 7; 0 when it is eligible.
    pub failures: u32,
    /// Milliseconds until the kernel tries it again on its own; null when it is eligible.
    pub retry_in_ms: Option<u64>,
    /// For whom it is ejected, and at which port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ejections: Vec<EjectionView>,
    /// The counters of its connects.
    pub counters: Option<BackendCounters>,
}

/// The ejection of a backend at a port, for all or for one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EjectionView {
    /// The port.
    pub port: u16,
    /// The cgroup or the interface whose connects have failed and avoid the backend; null: all do.
    pub client: Option<String>,
    /// What failed: `connect` or `reset`.
    #[serde(default)]
    pub cause: EjectionCause,
    /// Consecutive failures, up to 7.
    pub failures: u32,
    /// Milliseconds until the kernel tries it again on its own.
    pub retry_in_ms: u64,
}

/// Whether connects use a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// They do.
    Eligible,
    /// It failed recently; connects use other backends while there are any.
    Ejected,
}
