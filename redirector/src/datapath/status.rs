//! The status that the datapath reports.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use redirector_common::{
    backend::Health,
    stats::{BackendCounters, BackendStats, BackendTimes, RouteCounters},
};
use serde::{Deserialize, Serialize};

use crate::datapath::maps::health_words::{HealthWords, RouteBackend};

/// One route in the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteStatus {
    /// The outcomes of its connects.
    pub counters: RouteCounters,
    /// Its backends, IPv4 ones first.
    pub backends: Vec<BackendStatus>,
}

/// One backend of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its address.
    pub address: IpAddr,
    /// Its ejections, by port and client.
    pub ejections: Vec<Ejection>,
    /// The outcomes of its connects.
    pub counters: BackendCounters,
}

impl BackendStatus {
    /// Its ejection for all, if connects avoid it.
    pub fn ejected(&self) -> Option<&Ejection> {
        self.ejections.iter().find(|ejection| ejection.client.is_none())
    }

    /// The status for the elements of a backend's maps, at `now_ns` of the monotonic clock.
    pub(crate) fn new(
        address: IpAddr,
        (health, now_ns): (HealthWords, u64),
        (stats, times): (BackendStats, BackendTimes),
    ) -> Self {
        let ejection = |health: &Health| Ejection {
            port: health.port().get(),
            client: health.witness().map(|witness| witness.bits() as u16),
            cause: (*health).into(),
            failures: health.failures(),
            retry_in_ms: health.left_ns(now_ns) / 1_000_000,
        };
        let ejected = health.iter().filter(|health| health.is_ejected(now_ns));
        Self {
            address,
            ejections: ejected.map(ejection).collect(),
            counters: (stats, times).into(),
        }
    }
}

/// The ejection of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejection {
    /// The port.
    pub port: u16,
    /// For whom: see [`client_name`](crate::datapath::client_name); `None`: for all.
    pub client: Option<u16>,
    /// What failed.
    pub cause: EjectionCause,
    /// Consecutive failures, up to 7.
    pub failures: u8,
    /// Time until a connect tries it again, in milliseconds.
    pub retry_in_ms: u64,
}

/// What a backend is ejected for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EjectionCause {
    /// Connects failed.
    #[default]
    Connect,
    /// It accepted connects and reset the connections before a byte arrived.
    Reset,
}

impl EjectionCause {
    /// A failure in one word.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Connect => "failure",
            Self::Reset => "reset",
        }
    }
}

impl From<Health> for EjectionCause {
    fn from(health: Health) -> Self {
        if health.is_resetting() { Self::Reset } else { Self::Connect }
    }
}

/// A backend that failed and has had no success since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnhealthyBackend {
    /// The route: its VIP's index.
    pub index: u32,
    /// The backend's address.
    pub address: IpAddr,
    /// The port that failed.
    pub port: u16,
    /// Consecutive failures, up to 7.
    pub failures: u8,
    /// Whether it worked until the latest one.
    pub is_first_failure: bool,
    /// Whose connects failed: see [`client_name`](crate::datapath::client_name); `None`: those of
    /// several.
    pub client: Option<u16>,
    /// What failed.
    pub cause: EjectionCause,
    /// The addresses that its route connects from; none: the kernel's choice.
    pub sources: Vec<IpAddr>,
}

impl UnhealthyBackend {
    /// The backend and its port.
    pub fn place(&self) -> RouteBackend {
        RouteBackend { index: self.index, address: self.address, port: self.port }
    }
}

/// One loaded program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramStatus {
    /// Its name.
    pub name: String,
    /// Its ID in the kernel.
    pub id: u32,
    /// Instructions that the verifier processed (5.16 and later).
    pub verified_instructions: Option<u32>,
    /// Bytes of machine code.
    pub jited_bytes: u32,
}

/// A cgroup that the programs are attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The cgroup's directory on this host; absent if it was not found.
    pub cgroup: Option<PathBuf>,
    /// Its ID in the kernel.
    pub id: u64,
    /// The programs whose links are pinned.
    pub programs: Vec<String>,
}

/// The datapath of a running agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the maps.
    pub abi: u32,
    /// The pool of VIPs.
    pub pool: String,
    /// The IPv6 pool, if there is one.
    pub pool_ipv6: Option<String>,
    /// The loaded programs.
    pub programs: Vec<ProgramStatus>,
    /// The cgroups whose sockets are redirected.
    pub attachments: Vec<Attachment>,
    /// Routes in the maps.
    pub routes: usize,
    /// Time since the agent's last heartbeat.
    pub heartbeat_age: Option<Duration>,
}
