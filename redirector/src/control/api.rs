//! The JSON shapes of the control API, which are those of `-o json` as well. Documented in `docs/reference/api.md`.
//!
//! A field is never removed or given another meaning within one [`VERSION`]; new fields may appear, so readers ignore what they don't know.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use redirector_common::stats::LATENCY_BUCKETS;
use serde::{Deserialize, Serialize};

pub use super::event::{Event, EventLine, EventQuery, EventReason, EventResult, EventsInfo, Lost, LostBy, Traffic};
use crate::route::{Hand, RawRoute, SourceName};

/// The version of every shape in this module, in the field `version` of each top-level object.
pub const VERSION: u32 = 1;

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
    pub counters: std::collections::BTreeMap<String, u64>,
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
    pub why_not: Option<String>,
    /// Whether only the resolvers of `dns.intercept` are intercepted.
    pub listed_only: bool,
    /// The resolvers that executors asked, as far as they are told apart.
    pub resolvers: Vec<InterceptedResolver>,
    /// Connects and datagrams to port 53 that went where they were meant to, since the agent had given no sign of life for 2 s.
    pub left_alone_stale: u64,
    /// Those that went where they were meant to, since too many other resolvers had been asked.
    pub left_alone_crowded: u64,
}

/// A resolver that executors asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterceptedResolver {
    /// Its address.
    pub address: std::net::IpAddr,
    /// Connects, and datagrams of sockets that are not connected, that were taken to the shim.
    pub taken: u64,
}

/// A DNS server that the shim forwards to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamInfo {
    /// The server.
    pub address: SocketAddr,
    /// Whether others are asked in its place for a while, since it failed or loops.
    pub set_aside: bool,
    /// Whether it asks us in turn.
    #[serde(default)]
    pub loops: bool,
    /// Queries that it was sent since it was first seen.
    pub asked: u64,
    /// Of these, how many it did not answer within a second, or refused to take.
    pub failed: u64,
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
    /// Where cgroup2 is mounted, which the paths and patterns of `attach.cgroups` are relative to; null when it is nowhere.
    #[serde(default)]
    pub cgroup2_mount: Option<PathBuf>,
    /// Cgroups that could not be attached to; the agent goes on trying. Empty without an agent.
    #[serde(default)]
    pub waiting: Vec<WaitingInfo>,
    /// Cgroups that are gone and have left open sockets, for which the programs stay. 0 without an agent.
    #[serde(default)]
    pub fading_cgroups: usize,
    /// Programs of others on the hooks of the first 32 attachments.
    #[serde(default)]
    pub neighbours: Vec<NeighbourInfo>,
    /// The last time that another version of the agent took over; null when there never was one.
    #[serde(default)]
    pub upgraded: Option<UpgradeInfo>,
}

/// A cgroup that could not be attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingInfo {
    /// The cgroup's directory.
    pub cgroup: PathBuf,
    /// Why.
    pub reason: String,
}

/// Somebody else's program on a hook of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourInfo {
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
    pub made_by: Option<Hand>,
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
    Fixed,
    /// The resolver's own last answer.
    Fresh,
    /// The resolver fails; these are the last good ones.
    Kept,
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
    SetAside,
}

/// What became of a route's connects since it got its virtual address. `started` is the sum of the six ends and what is in flight.
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
    pub desperate: u64,
    /// Nanoseconds from connect to established, summed over the established ones.
    pub connect_ns: u64,
    /// Bytes received on connections that have ended.
    pub rx_bytes: u64,
    /// Bytes acknowledged on connections that have ended.
    pub tx_bytes: u64,
    /// Segments sent again on connections that have ended.
    pub retransmitted: u64,
    /// Connects that could not be made from the route's source address, and went out from the kernel's choice.
    pub source_failed: u64,
    /// Smoothed round-trip times at the end of connections, in microseconds, summed over the closed ones.
    pub srtt_us: u64,
    /// The established ones by the time that it took: less than 2^17 ns, then less than twice as long each, up to 2^30 ns; all the rest.
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
    /// Smoothed round-trip times at the end of connections, in microseconds, summed over the closed ones.
    pub srtt_us: u64,
}

/// What a change of one route did: the reply to `POST`, `PATCH` and `DELETE` on routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// [`VERSION`].
    pub version: u32,
    /// What was done.
    pub change: ChangeKind,
    /// The source that was changed.
    pub source: SourceName,
    /// The route that is live now; null after a removal.
    pub route: Option<RouteView>,
    /// What the operator should know although the change was made.
    pub warnings: Vec<String>,
}

/// What was done to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is different.
    Changed,
    /// It was like that already.
    Unchanged,
    /// It is gone.
    Removed,
    /// An override is gone; the file's route serves again.
    Restored,
}

/// The body of `POST /v1/import`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// The routes.
    pub routes: Vec<RawRoute>,
    /// Whether they are to be the whole: routes of earlier imports and of the command line that are not among them go.
    #[serde(default)]
    pub replace: bool,
    /// Whether to say what would change and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// The reply to `POST /v1/import`: the difference between what served and what serves now, or would.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Imported {
    /// [`VERSION`].
    pub version: u32,
    /// Whether nothing was changed because `dry_run` was asked for.
    pub dry_run: bool,
    /// Routes that are new.
    pub added: Vec<RawRoute>,
    /// Routes that are different.
    pub changed: Vec<Differing>,
    /// Routes that are gone.
    pub removed: Vec<RawRoute>,
    /// How many routes stay as they are.
    pub unchanged: usize,
    /// What the operator should know although the change was made.
    pub warnings: Vec<String>,
}

/// `GET /v1/history`, `redirector route history -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeList {
    /// [`VERSION`].
    pub version: u32,
    /// The changes that are kept, the last one first.
    pub changes: Vec<Change>,
}

/// A change of the stored routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Its number; they grow by one.
    pub number: u64,
    /// When.
    pub at: jiff::Timestamp,
    /// The user of the process that asked for it.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The process; null when it was not visible to the agent.
    pub pid: Option<i32>,
    /// `added`, `changed`, `removed`, `restored`, `imported` or `rolled_back`.
    pub did: String,
    /// The change that it took back.
    pub undoes: Option<u64>,
    /// Whether it was taken back.
    pub undone: bool,
    /// The sources that it concerns.
    pub sources: Vec<SourceName>,
}

/// `GET /v1/history/{number}`, `redirector route history NUMBER -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeShow {
    /// The change.
    pub change: Change,
    /// What it did to the stored routes.
    #[serde(flatten)]
    pub did: Imported,
}

/// The body of `POST /v1/rollback`; an empty one is `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Whether to say what would change and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// The reply to `POST /v1/rollback`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The change that was taken back.
    pub undone: Change,
    /// What that changed.
    #[serde(flatten)]
    pub result: Imported,
}

/// One route before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Differing {
    /// What it was.
    pub old: RawRoute,
    /// What it is now.
    pub new: RawRoute,
}

/// `GET /v1/export`, `redirector route export -o json`: what `POST /v1/import` takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// [`VERSION`].
    pub version: u32,
    /// Every route that serves, by source.
    pub routes: Vec<RawRoute>,
}

/// The reply to `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// [`VERSION`].
    pub version: u32,
    /// Sources that were added, changed or removed by it.
    pub changed: Vec<SourceName>,
    /// Keys whose new value needs a restart of the agent to take effect.
    pub restart_needed_for: Vec<String>,
}
