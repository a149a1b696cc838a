//! What the datapath reports.

use std::{net::IpAddr, ops::AddAssign, path::PathBuf, time::Duration};

use redirector_common::{
    backend::Health,
    stats::{BackendStats, BackendTimes, LATENCY_BUCKETS, RouteStats, RouteTimes},
};
use serde::{Deserialize, Serialize};

/// The outcomes of a route's connects since its VIP was leased. `started` is the sum of the six
/// outcomes and of the connects in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteCounters {
    /// Connects that were redirected.
    pub started: u64,
    /// Connects that a backend accepted.
    pub established: u64,
    /// Connects that a backend answered with a reset.
    pub refused: u64,
    /// Connects that no backend answered.
    pub timed_out: u64,
    /// Connects that the network reported as undeliverable.
    pub unreachable: u64,
    /// Connects that the application gave up.
    pub aborted: u64,
    /// Connects that never left this host.
    pub unsent: u64,
    /// Established connections that have ended since.
    pub closed: u64,
    /// Connects that were refused here: unlisted port, no backend.
    pub denied: u64,
    /// Connects that were left alone by `on_no_backend = "pass"`.
    pub passed: u64,
    /// Connects that were sent to an ejected backend, since all were ejected.
    pub all_ejected: u64,
    /// Nanoseconds from connect to established, summed over the established ones.
    pub connect_ns: u64,
    /// Bytes received on connections that have ended.
    pub rx_bytes: u64,
    /// Bytes acknowledged on connections that have ended.
    pub tx_bytes: u64,
    /// Segments retransmitted on connections that have ended.
    pub retransmitted: u64,
    /// Connects that could not use the route's source address and used the kernel's choice.
    pub source_ip_failed: u64,
    /// Smoothed round-trip times at the end of connections, in microseconds, summed over the closed
    /// ones.
    pub srtt_us: u64,
    /// Established connects by duration: see [`redirector_common::stats::latency_bound_ns`].
    pub latency: [u64; LATENCY_BUCKETS],
}

impl RouteCounters {
    pub(crate) fn new(s: RouteStats, times: RouteTimes) -> Self {
        Self {
            started: s.started,
            established: s.established,
            refused: s.refused,
            timed_out: s.timed_out,
            unreachable: s.unreachable,
            aborted: s.aborted,
            unsent: s.unsent,
            closed: s.closed,
            denied: s.denied,
            passed: s.passed,
            all_ejected: s.all_ejected,
            connect_ns: s.connect_ns,
            rx_bytes: s.rx_bytes,
            tx_bytes: s.tx_bytes,
            retransmitted: s.retransmitted,
            source_ip_failed: s.source_ip_failed,
            srtt_us: times.srtt_us,
            latency: times.latency,
        }
    }
}

impl RouteCounters {
    /// Connections that are established now.
    pub fn open(&self) -> u64 {
        self.established.saturating_sub(self.closed)
    }
}

/// The sum of two routes.
impl AddAssign for RouteCounters {
    fn add_assign(&mut self, other: Self) {
        let Self {
            started,
            established,
            refused,
            timed_out,
            unreachable,
            aborted,
            unsent,
            closed,
            denied,
            passed,
            all_ejected,
            connect_ns,
            rx_bytes,
            tx_bytes,
            retransmitted,
            source_ip_failed,
            srtt_us,
            latency,
        } = other;
        for (sum, value) in [
            (&mut self.started, started),
            (&mut self.established, established),
            (&mut self.refused, refused),
            (&mut self.timed_out, timed_out),
            (&mut self.unreachable, unreachable),
            (&mut self.aborted, aborted),
            (&mut self.unsent, unsent),
            (&mut self.closed, closed),
            (&mut self.denied, denied),
            (&mut self.passed, passed),
            (&mut self.all_ejected, all_ejected),
            (&mut self.connect_ns, connect_ns),
            (&mut self.rx_bytes, rx_bytes),
            (&mut self.tx_bytes, tx_bytes),
            (&mut self.retransmitted, retransmitted),
            (&mut self.source_ip_failed, source_ip_failed),
            (&mut self.srtt_us, srtt_us),
        ]
        .into_iter()
        .chain(self.latency.iter_mut().zip(latency))
        {
            *sum += value;
        }
    }
}

/// One route in the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteStatus {
    /// The outcomes of its connects.
    pub counters: RouteCounters,
    /// Its backends, IPv4 ones first.
    pub backends: Vec<BackendStatus>,
}

/// The outcomes of one backend's connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendCounters {
    /// Connects that were sent here.
    pub started: u64,
    /// Connects that it accepted.
    pub established: u64,
    /// Connects that a backend answered with a reset.
    pub refused: u64,
    /// Connects that no backend answered.
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

impl BackendCounters {
    fn new(s: BackendStats, times: BackendTimes) -> Self {
        Self {
            started: s.started,
            established: s.established,
            refused: s.refused,
            timed_out: s.timed_out,
            unreachable: s.unreachable,
            aborted: s.aborted,
            unsent: s.unsent,
            closed: s.closed,
            connect_ns: times.connect_ns,
            srtt_us: times.srtt_us,
        }
    }
}

/// One backend of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its address.
    pub address: IpAddr,
    /// Its ejection, if connects avoid it.
    pub ejected: Option<Ejection>,
    /// The outcomes of its connects.
    pub counters: BackendCounters,
}

impl BackendStatus {
    /// From the elements of its maps, at `now_ns` of the monotonic clock.
    pub(crate) fn new(
        address: IpAddr,
        (health, now_ns): (Health, u64),
        (stats, times): (BackendStats, BackendTimes),
    ) -> Self {
        let ejected = health.is_ejected(now_ns).then(|| Ejection {
            failures: health.failures(),
            retry_in_ms: health.until_ns().saturating_sub(now_ns) / 1_000_000,
        });
        Self { address, ejected, counters: BackendCounters::new(stats, times) }
    }
}

/// The ejection of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejection {
    /// Consecutive failures, up to 255.
    pub failures: u8,
    /// Time until a connect tries it again, in milliseconds.
    pub retry_in_ms: u64,
}

/// A backend that failed and has not been seen working since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnhealthyBackend {
    /// The route: its VIP's index.
    pub index: u32,
    /// The backend's address.
    pub address: IpAddr,
    /// The port that failed last.
    pub port: u16,
    /// Consecutive failures, up to 255.
    pub failures: u8,
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
