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
    /// Whether executors get the answers of sources whichever resolver they query.
    pub on: bool,
    /// The way that `dns.intercept` chooses.
    #[serde(default)]
    pub way: InterceptWay,
    /// Why they do not; null when they do.
    pub reason: Option<String>,
    /// With `sockets`: the resolvers whose queries go to the shim.
    pub resolvers: Vec<InterceptedResolver>,
    /// With `sockets`: connects and datagrams to these resolvers that were not intercepted because
    /// the agent's heartbeat was older than 2 s.
    pub bypassed_heartbeat_stale: u64,
}

/// How the DNS of executors is intercepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterceptWay {
    /// Queries for sources are answered in the kernel, whichever resolver they go to; everything
    /// else is left alone.
    Packets,
    /// Queries to the listed resolvers go to the shim.
    Sockets,
    /// Not at all: only clients that query the shim itself get answers for sources.
    #[default]
    Off,
}

/// A resolver whose queries go to the shim.
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
    /// The zones that it forwards back to the shim, while it resolves other names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looping_zones: Vec<String>,
    /// Queries sent to it since it was first seen.
    pub queries: u64,
    /// Of these, how many it did not answer within a second, or did not accept.
    pub failures: u64,
}
