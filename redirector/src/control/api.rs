//! The JSON shapes of the control API, which are those of `-o json` as well. Documented in
//! `docs/reference/api.md`.
//!
//! A field is never removed or given another meaning within one [`VERSION`]; new fields may appear,
//! so readers ignore what they don't know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use redirector_common::stats::LATENCY_BUCKETS;
use serde::{Deserialize, Serialize};

pub use super::event::{
    Event, EventLine, EventQuery, EventReason, EventResult, EventsInfo, Lost, LostBy, Traffic,
};
pub use super::status::{
    AgentInfo, AttachmentInfo, ConfigInfo, DatapathInfo, DnsInfo, InterceptedResolver,
    InterceptionInfo, NeighbourInfo, OTHER_VERSION, Problem, State, Status, UpgradeInfo,
    UpstreamInfo, WaitingInfo,
};
use crate::route::{Hand, RawRoute, SourceName};

/// The version of every shape in this module, in the field `version` of each top-level object.
pub const VERSION: u32 = 1;

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
    pub desperate: u64,
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
    pub source_failed: u64,
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
    /// Whether they are to be the whole: routes of earlier imports and of the command line that are
    /// not among them go.
    #[serde(default)]
    pub replace: bool,
    /// Whether to say what would change and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// The reply to `POST /v1/import`: the difference between what served and what serves now, or
/// would.
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
