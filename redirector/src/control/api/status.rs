//! The JSON shapes of the status: `GET /v1/status`, which are those of `redirector status -o json`
//! as well.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::control::api::version::VERSION;
use crate::{
    control::api::{event::EventsInfo, route::RouteView},
    route::SourceName,
};

/// Everything an operator asks first: `GET /v1/status`, `redirector status -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// Whether anything is amiss.
    pub state: State,
    /// One line for a person, such as `redirecting 3 routes for 2 cgroups; 1 backend set aside`.
    pub summary: String,
    /// What is amiss, the worst first; empty exactly when `state` is `ok`.
    pub problems: Vec<Problem>,
    /// The agent that answered; null when the state was read from the pins because no agent runs.
    pub agent: Option<AgentInfo>,
    /// The configuration in force; null without an agent.
    pub config: Option<ConfigInfo>,
    /// The DNS shim; null without an agent.
    pub dns: Option<DnsInfo>,
    /// The programs, maps and links in the kernel; null when there are none.
    pub datapath: Option<DatapathInfo>,
    /// How events of single connects fare; null without an agent.
    #[serde(default)]
    pub events: Option<EventsInfo>,
    /// Every route, by source.
    pub routes: Vec<RouteView>,
}

/// Whether anything is amiss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is.
    Ok,
    /// Something is, see `problems`; what can still work does.
    Degraded,
}

/// One thing that is amiss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable word for programs; `docs/reference/api.md` lists them.
    pub code: String,
    /// The route it concerns, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// What is amiss, for a person.
    pub message: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// False for what is worth knowing but does not make the state degraded.
    pub degrades: bool,
}

/// The running agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Its process ID, in the agent's own PID namespace.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it was ready.
    pub started_at: jiff::Timestamp,
    /// Seconds since then.
    pub uptime_seconds: u64,
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigInfo {
    /// The file.
    pub path: PathBuf,
    /// When the state that serves now was read from it.
    pub loaded_at: jiff::Timestamp,
    /// Why its present content does not serve, one line per problem; null when it does.
    pub error: Option<String>,
    /// Keys whose new value needs a restart of the agent to take effect, such as `dns.listen`.
    #[serde(default)]
    pub restart_needed_for: Vec<String>,
}

/// The DNS shim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsInfo {
    /// The addresses it is bound to.
    pub listen: Vec<SocketAddr>,
    /// How many sources it answers.
    pub names: usize,
    /// Its counters by name, since the agent's start.
    pub counters: BTreeMap<String, u64>,
    /// Whom it asks about names that are not its own, in this order.
    #[serde(default)]
    pub upstreams: Vec<UpstreamInfo>,
    /// Whether the DNS of executors is taken to it.
    #[serde(default)]
    pub interception: Option<InterceptionInfo>,
}

/// The code of a problem: what is in the kernel is another version's, and can't be read.
pub const OTHER_VERSION: &str = "other_version";

/// DNS interception.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterceptionInfo {
    /// Whether the DNS of executors is taken to the shim.
    pub on: bool,
    /// Why it is not; null when it is.
    pub reason: Option<String>,
    /// Whether only the resolvers of `dns.intercept` are intercepted.
    pub listed_only: bool,
    /// The resolvers that executors asked, as far as they are told apart.
    pub resolvers: Vec<InterceptedResolver>,
    /// Connects and datagrams to port 53 that went where they were meant to, since the agent had
    /// given no sign of life for 2 s.
    pub bypassed_heartbeat_stale: u64,
    /// Those that went where they were meant to, since too many other resolvers had been asked.
    pub bypassed_resolver_slots_full: u64,
}

/// A resolver that executors asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterceptedResolver {
    /// Its address.
    pub address: IpAddr,
    /// Connects, and datagrams of sockets that are not connected, that were taken to the shim.
    pub intercepted: u64,
}

/// A DNS server that the shim forwards to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamInfo {
    /// The server.
    pub address: SocketAddr,
    /// Whether others are asked in its place for a while, since it failed or loops.
    pub ejected: bool,
    /// Whether it asks us in turn.
    #[serde(default)]
    pub loops: bool,
    /// Queries that it was sent since it was first seen.
    pub queries: u64,
    /// Of these, how many it did not answer within a second, or refused to take.
    pub failures: u64,
}

/// The datapath in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatapathInfo {
    /// The version of what kernel and user space share.
    pub abi: u32,
    /// The directory of its pins.
    pub pins: PathBuf,
    /// The pool's IPv4 range.
    pub pool_ipv4: String,
    /// The pool's IPv6 range, if it has one.
    pub pool_ipv6: Option<String>,
    /// Milliseconds since the agent's last sign of life; null when there never was one.
    pub heartbeat_age_ms: Option<u64>,
    /// The programs, by name.
    pub programs: Vec<String>,
    /// Where they are attached.
    pub attachments: Vec<AttachmentInfo>,
    /// Where cgroup2 is mounted, which the paths and patterns of `attach.cgroups` are relative to;
    /// null when it is nowhere.
    #[serde(default)]
    pub cgroup2_mount: Option<PathBuf>,
    /// Cgroups that could not be attached to; the agent goes on trying. Empty without an agent.
    #[serde(default)]
    pub pending_attachments: Vec<PendingAttachment>,
    /// Cgroups that are gone and have left open sockets, for which the programs stay. 0 without an
    /// agent.
    #[serde(default)]
    pub draining_cgroups: usize,
    /// Programs of others on the hooks of the first 32 attachments.
    #[serde(default)]
    pub foreign_programs: Vec<ForeignProgram>,
    /// The last time that another version of the agent took over; null when there never was one.
    #[serde(default)]
    pub upgraded: Option<UpgradeInfo>,
}

/// A cgroup that could not be attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingAttachment {
    /// The cgroup's directory.
    pub cgroup: PathBuf,
    /// Why.
    pub reason: String,
}

/// Somebody else's program on a hook of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignProgram {
    /// The cgroup whose connects it sees: ours, by its own or an attachment above.
    pub cgroup: PathBuf,
    /// `connect4`, `connect6`, `getpeername4`, `getpeername6`, `sock_ops` or `sock_release`.
    pub hook: String,
    /// The kernel's number for it.
    pub id: u32,
    /// Its name; null when whoever asked may not ask for it.
    pub name: Option<String>,
    /// Whether it runs before ours, so that ours sees what it has left of the address.
    pub runs_first: bool,
}

/// Another version of the agent took over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeInfo {
    /// When it served for the first time.
    pub at: jiff::Timestamp,
    /// The version before; null when it is known by its tables only.
    pub from_version: Option<String>,
    /// The version of its tables.
    pub from_abi: u32,
    /// The version that took over.
    pub to_version: String,
    /// The version of its tables.
    pub to_abi: u32,
}

/// One cgroup that the programs are attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentInfo {
    /// The cgroup's directory; null when it is known by its ID only.
    pub cgroup: Option<PathBuf>,
    /// Its ID (the inode of its directory).
    pub cgroup_id: u64,
    /// The programs that are attached there.
    pub programs: Vec<String>,
    /// Whether the cgroup is still there and every program attached.
    pub live: bool,
}
