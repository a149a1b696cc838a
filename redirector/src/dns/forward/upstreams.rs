//! The upstreams and how they are doing: one that fails is set aside and, when its time has come,
//! tried next to a good one.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    dns::stats::{Latency, Times},
    net::Nameservers,
};

/// Exchanges of one query at a time; each has a socket.
pub(crate) const AT_ONCE: usize = 3;
/// Failures in a row that set an upstream aside. One lost packet does not.
const PATIENCE: u32 = 2;
/// For how long an upstream is set aside at first; doubled at each failure since.
const ASIDE_FIRST: Duration = Duration::from_secs(1);
/// For how long at most.
const ASIDE_LONGEST: Duration = Duration::from_secs(30);

/// Bits of [`Upstream::probe`]: it was asked once, the last question has come back, it loops.
const PROBED: u8 = 1;
const CAME_BACK: u8 = 2;
const LOOPS: u8 = 4;

/// The servers that queries are forwarded to.
#[derive(Debug)]
pub(crate) struct Upstreams {
    nameservers: Nameservers,
    started: Instant,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    servers: Arc<[SocketAddr]>,
    upstreams: Vec<Arc<Upstream>>,
}

/// One server.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    /// Whether the configuration names it. What executors ask is their business, and no matter for
    /// the log.
    is_ours: bool,
    started: Instant,
    failures: AtomicU32,
    /// Milliseconds since `started` until which it is set aside.
    aside_until: AtomicU64,
    /// What questions of ours that came back have told: see [`super::loop_detector`].
    probe: AtomicU8,
    /// Queries that it was sent, and those that it did not answer in time.
    asked: AtomicU64,
    failed: AtomicU64,
    times: Times,
}

/// How an upstream is doing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct UpstreamHealth {
    /// The server.
    pub address: SocketAddr,
    /// Failures since it last answered.
    pub failures: u32,
    /// Whether others are asked in its place for a while.
    pub set_aside: bool,
    /// Whether that is since it asks us in turn.
    pub loops: bool,
    /// Queries that it was sent since it was first seen, those of other upstreams that had failed
    /// among them.
    pub asked: u64,
    /// Of these, how many it did not answer within a second, or refused to take.
    pub failed: u64,
    /// How long its replies took.
    pub latency: Latency,
}

#[cfg(test)]
impl UpstreamHealth {
    /// One that failed lately.
    pub(crate) fn example() -> Self {
        let latency = crate::dns::stats::DnsTally::example().forwarded;
        Self {
            address: ([192, 0, 2, 53], 53).into(),
            failures: 2,
            set_aside: true,
            loops: false,
            asked: 5,
            failed: 3,
            latency,
        }
    }
}

/// Whom to ask, for one query.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    /// To be asked at once: the first good one, and those set aside whose time has come.
    pub(crate) first: Vec<Arc<Upstream>>,
    /// To be asked when those fail or are slow, in this order.
    pub(crate) then: Vec<Arc<Upstream>>,
}

impl Candidates {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.then.is_empty()
    }
}

impl Upstreams {
    pub(crate) fn new(nameservers: Nameservers) -> Self {
        Self { nameservers, started: Instant::now(), known: Mutex::default() }
    }

    pub(crate) fn nameservers(&self) -> &Nameservers {
        &self.nameservers
    }

    /// Whom to ask now. The configured order counts. When every server is set aside, three are
    /// asked at once, since a guess beats a certain failure; but never one that loops.
    pub(crate) fn candidates(&self) -> Candidates {
        let mut upstreams = self.upstreams();
        upstreams.retain(|upstream| !upstream.loops());
        if upstreams.iter().all(|upstream| upstream.is_aside()) {
            let then = upstreams.split_off(upstreams.len().min(AT_ONCE));
            return Candidates { first: upstreams, then };
        }
        let mut candidates = Candidates::default();
        let mut last = Vec::new();
        let mut good = false;
        for upstream in upstreams {
            if !upstream.is_suspect() {
                let list = if good { &mut candidates.then } else { &mut candidates.first };
                list.push(upstream);
                good = true;
            } else if candidates.first.len() < AT_ONCE && upstream.claim_trial() {
                candidates.first.push(upstream);
            } else {
                last.push(upstream);
            }
        }
        candidates.then.append(&mut last);
        candidates
    }

    /// How each server is doing, in the configured order.
    pub(crate) fn health(&self) -> Vec<UpstreamHealth> {
        self.upstreams().iter().map(|upstream| upstream.health()).collect()
    }

    /// The servers of now; those that stay keep their record.
    pub(crate) fn upstreams(&self) -> Vec<Arc<Upstream>> {
        let servers = self.nameservers.current();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.servers != servers {
            let old = std::mem::take(&mut known.upstreams);
            let keep = |address: &SocketAddr| {
                old.iter().find(|upstream| upstream.address == *address).cloned()
            };
            known.upstreams = servers
                .iter()
                .map(|at| keep(at).unwrap_or_else(|| Arc::new(Upstream::new(*at, self.started))))
                .collect();
            known.servers = servers;
        }
        known.upstreams.clone()
    }
}

impl Upstream {
    fn new(address: SocketAddr, started: Instant) -> Self {
        Self {
            address,
            is_ours: true,
            started,
            failures: AtomicU32::new(0),
            aside_until: AtomicU64::new(0),
            probe: AtomicU8::new(0),
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            times: Times::default(),
        }
    }

    /// A resolver that an executor asked.
    pub(crate) fn asked_for(address: SocketAddr, started: Instant) -> Self {
        Self { is_ours: false, ..Self::new(address, started) }
    }

    /// How it is doing.
    pub(crate) fn health(&self) -> UpstreamHealth {
        UpstreamHealth {
            address: self.address,
            failures: self.failures.load(Relaxed),
            set_aside: self.is_suspect() || self.loops(),
            loops: self.loops(),
            asked: self.asked.load(Relaxed),
            failed: self.failed.load(Relaxed),
            latency: self.times.snapshot(),
        }
    }

    /// It is sent a query.
    pub(crate) fn asked(&self) {
        self.asked.fetch_add(1, Relaxed);
    }

    /// It answered after this time.
    pub(crate) fn succeeded(&self, took: Duration) {
        self.times.add(took, 1);
        if self.failures.swap(0, Relaxed) >= PATIENCE && self.is_ours {
            tracing::info!(upstream = %self.address, "the upstream answers again");
        }
        self.aside_until.store(0, Relaxed);
    }

    /// It did not answer in time, or refused the packet.
    pub(crate) fn failed(&self, why: &str) {
        self.failed.fetch_add(1, Relaxed);
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures < PATIENCE {
            return;
        }
        let doubled = ASIDE_FIRST.saturating_mul(1 << (failures - PATIENCE).min(8));
        self.set_aside(doubled.min(ASIDE_LONGEST));
        if failures == PATIENCE && self.is_ours {
            tracing::warn!(upstream = %self.address, why, "the upstream is set aside");
        }
    }

    /// Whether it was ever asked whether it loops.
    pub(crate) fn was_probed(&self) -> bool {
        self.probe.load(Relaxed) != 0
    }

    /// Whether it asks us in turn.
    pub(crate) fn loops(&self) -> bool {
        self.probe.load(Relaxed) & LOOPS != 0
    }

    /// It is asked whether it loops.
    pub(crate) fn begin_probe(&self) {
        self.probe.fetch_or(PROBED, Relaxed);
        self.probe.fetch_and(!CAME_BACK, Relaxed);
    }

    /// The question has come back.
    pub(crate) fn looped(&self) {
        if self.probe.fetch_or(CAME_BACK | LOOPS, Relaxed) & LOOPS == 0 {
            tracing::warn!(
                upstream = %self.address,
                "the upstream asks us in turn, so it is set aside until it does no more: let it \
                    ask the real server, or name that in dns.upstreams"
            );
        }
    }

    /// The question has come back by now, or never will.
    pub(crate) fn end_probe(&self) {
        if self.probe.load(Relaxed) & CAME_BACK == 0
            && self.probe.fetch_and(!LOOPS, Relaxed) & LOOPS != 0
        {
            tracing::info!(upstream = %self.address, "the upstream asks us no more");
        }
    }

    fn is_suspect(&self) -> bool {
        self.failures.load(Relaxed) >= PATIENCE
    }

    fn is_aside(&self) -> bool {
        self.is_suspect() && self.now() < self.aside_until.load(Relaxed)
    }

    /// Whether its time has come to be tried; true for one caller only, others wait for what comes
    /// of it.
    fn claim_trial(&self) -> bool {
        let until = self.aside_until.load(Relaxed);
        let now = self.now();
        let next = now + millis(ASIDE_FIRST);
        now >= until && self.aside_until.compare_exchange(until, next, Relaxed, Relaxed).is_ok()
    }

    fn set_aside(&self, time: Duration) {
        self.aside_until.fetch_max(self.now() + millis(time), Relaxed);
    }

    fn now(&self) -> u64 {
        millis(self.started.elapsed())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
