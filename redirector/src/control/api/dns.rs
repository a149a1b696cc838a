//! The shapes of the DNS shim, part of the status.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

/// The DNS shim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsInfo {
    /// The addresses it is bound to.
    pub listen: Vec<SocketAddr>,
    /// How many sources it answers.
    pub names: usize,
    /// Its counters by name, since the agent started.
    pub counters: BTreeMap<String, u64>,
    /// The servers it forwards other names to, in order of preference.
    #[serde(default)]
    pub upstreams: Vec<UpstreamInfo>,
    /// Interception of executors' DNS.
    #[serde(default)]
    pub interception: Option<InterceptionInfo>,
}

/// DNS interception.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterceptionInfo {
    /// Whether DNS of executors goes to the shim.
    pub on: bool,
    /// Why it does not; null when it does.
    pub reason: Option<String>,
    /// Whether only the resolvers listed in `dns.intercept` are intercepted.
    pub listed_only: bool,
    /// The resolvers that executors queried, as far as each has a slot of its own.
    pub resolvers: Vec<InterceptedResolver>,
    /// Connects and datagrams to port 53 that were not intercepted because the agent's heartbeat
    /// was older than 2 s.
    pub bypassed_heartbeat_stale: u64,
    /// Connects and datagrams to port 53 that were not intercepted because other resolvers held all
    /// slots.
    pub bypassed_resolver_slots_full: u64,
}

/// A resolver that executors queried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterceptedResolver {
    /// Its address.
    pub address: IpAddr,
    /// Connects, and datagrams of unconnected sockets, that were intercepted.
    pub intercepted: u64,
}

/// A DNS server that the shim forwards to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamInfo {
    /// The server.
    pub address: SocketAddr,
    /// Whether it is skipped for a while, because it fails or loops.
    pub ejected: bool,
    /// Whether it forwards queries back to the shim.
    #[serde(default)]
    pub loops: bool,
    /// Queries sent to it since it was first seen.
    pub queries: u64,
    /// Of these, how many it did not answer within a second, or did not accept.
    pub failures: u64,
}
