//! One upstream and its health. An upstream that fails is ejected for a while; then one query tries
//! it together with a healthy one.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::looping_zones::{LoopingZones, text};
use crate::dns::{
    local::WireName,
    stats::{Histogram, HistogramSnapshot},
};

/// Consecutive failures that eject an upstream. One lost packet does not.
const FAILURES_TO_EJECT: u32 = 2;
/// Time of the first ejection; each further failure doubles it.
const EJECTION_MIN: Duration = Duration::from_secs(1);
/// Longest time of an ejection.
const EJECTION_MAX: Duration = Duration::from_secs(30);

/// Bits of [`Upstream::loop_state`].
const PROBED: u8 = 1;
const PROBE_RETURNED: u8 = 2;
const LOOPS: u8 = 4;

/// One server.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    started: Instant,
    consecutive_failures: AtomicU32,
    /// Milliseconds since `started`.
    ejected_until: AtomicU64,
    /// Results of loop probes, see [`super::loop_detector`].
    loop_state: AtomicU8,
    /// The zones that it forwards back to us.
    looping_zones: LoopingZones,
    queries: AtomicU64,
    failures: AtomicU64,
    latency: Histogram,
}

/// The state of an upstream.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct UpstreamHealth {
    /// The server.
    pub address: SocketAddr,
    /// Failures since it last answered.
    pub consecutive_failures: u32,
    /// Whether it is skipped for a while, because it fails or loops.
    pub ejected: bool,
    /// Whether it forwards queries back to us.
    pub loops: bool,
    /// The zones that it forwards back to us, if not all.
    pub looping_zones: Vec<String>,
    /// Queries that it was sent, including those that another upstream had failed to answer.
    pub queries: u64,
    /// Of these, those without a reply within a second or with an error.
    pub failures: u64,
    /// Latency of its replies.
    pub latency: HistogramSnapshot,
}

#[cfg(test)]
impl UpstreamHealth {
    /// An upstream that failed lately.
    pub(crate) fn example() -> Self {
        Self {
            address: ([192, 0, 2, 53], 53).into(),
            consecutive_failures: 2,
            ejected: true,
            loops: false,
            looping_zones: Vec::new(),
            queries: 5,
            failures: 3,
            latency: crate::dns::stats::QueryStatsSnapshot::example().forward_latency,
        }
    }
}

impl Upstream {
    /// A configured upstream.
    pub(super) fn new(address: SocketAddr, started: Instant) -> Self {
        Self {
            address,
            started,
            consecutive_failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            loop_state: AtomicU8::new(0),
            looping_zones: LoopingZones::default(),
            queries: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            latency: Histogram::default(),
        }
    }

    pub(super) fn health(&self) -> UpstreamHealth {
        UpstreamHealth {
            address: self.address,
            consecutive_failures: self.consecutive_failures.load(Relaxed),
            ejected: self.is_failing() || self.loops(),
            loops: self.loops(),
            looping_zones: self.looping_zones.names(),
            queries: self.queries.load(Relaxed),
            failures: self.failures.load(Relaxed),
            latency: self.latency.snapshot(),
        }
    }

    pub(super) fn count_query(&self) {
        self.queries.fetch_add(1, Relaxed);
    }

    pub(super) fn record_reply(&self, latency: Duration) {
        self.latency.record(latency, 1);
        let failures = self.consecutive_failures.swap(0, Relaxed);
        if failures >= FAILURES_TO_EJECT {
            tracing::info!(upstream = %self.address, "the upstream answers again");
        }
        self.ejected_until.store(0, Relaxed);
    }

    /// Records that the upstream did not answer in time, or that its host refused the packet.
    pub(super) fn record_failure(&self, reason: &str) {
        self.failures.fetch_add(1, Relaxed);
        let failures = self.consecutive_failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures < FAILURES_TO_EJECT {
            return;
        }
        let doubled = EJECTION_MIN.saturating_mul(1 << (failures - FAILURES_TO_EJECT).min(8));
        let until = self.now_ms() + millis(doubled.min(EJECTION_MAX));
        self.ejected_until.fetch_max(until, Relaxed);
        if failures == FAILURES_TO_EJECT {
            tracing::warn!(upstream = %self.address, reason, "the upstream is ejected");
        }
    }

    /// Whether the loop detector has probed it.
    pub(super) fn was_probed(&self) -> bool {
        self.loop_state.load(Relaxed) != 0
    }

    /// Whether it forwards queries back to us.
    pub(crate) fn loops(&self) -> bool {
        self.loop_state.load(Relaxed) & LOOPS != 0
    }

    /// Whether it forwards queries for this name, in wire form, back to us.
    pub(super) fn loops_for(&self, name: &[u8]) -> bool {
        self.loops() || self.looping_zones.contain(name)
    }

    /// The zones that were probed.
    pub(super) fn looping_zones(&self) -> &LoopingZones {
        &self.looping_zones
    }

    /// Records that the probe of a zone came back to us.
    pub(super) fn on_zone_returned(&self, zone: &WireName) {
        if self.looping_zones.add(zone) {
            tracing::warn!(
                upstream = %self.address,
                zone = text(zone),
                "the upstream forwards queries for the zone back to us: names there without a \
                    route fail until it stops"
            );
        }
    }

    /// Records that the probe of a zone did not come back.
    pub(super) fn on_zone_kept(&self, zone: &WireName) {
        if self.looping_zones.clear(zone) {
            tracing::info!(
                upstream = %self.address, zone = text(zone), "the zone no longer loops"
            );
        }
    }

    pub(super) fn begin_probe(&self) {
        self.loop_state.fetch_or(PROBED, Relaxed);
        self.loop_state.fetch_and(!PROBE_RETURNED, Relaxed);
    }

    /// Records that the probe came back to us.
    pub(super) fn on_probe_returned(&self) {
        if self.loop_state.fetch_or(PROBE_RETURNED | LOOPS, Relaxed) & LOOPS == 0 {
            tracing::warn!(
                upstream = %self.address,
                "the upstream forwards queries back to us and is ejected until it stops: point it \
                    at the real server, or name that server in dns.upstreams"
            );
        }
    }

    /// Ends the probe. If it has not come back, the upstream does not loop.
    pub(super) fn end_probe(&self) {
        if self.loop_state.load(Relaxed) & PROBE_RETURNED == 0
            && self.loop_state.fetch_and(!LOOPS, Relaxed) & LOOPS != 0
        {
            tracing::info!(upstream = %self.address, "the upstream no longer loops");
        }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.consecutive_failures.load(Relaxed) >= FAILURES_TO_EJECT
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.is_failing() && self.now_ms() < self.ejected_until.load(Relaxed)
    }

    /// Whether the ejection is over and this caller is the one to try the upstream. Other callers
    /// wait for the result.
    pub(super) fn claim_trial(&self) -> bool {
        let until = self.ejected_until.load(Relaxed);
        let now = self.now_ms();
        let next = now + millis(EJECTION_MIN);
        now >= until && self.ejected_until.compare_exchange(until, next, Relaxed, Relaxed).is_ok()
    }

    fn now_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn each_failure_doubles_the_ejection_up_to_its_longest() {
        let upstream = Upstream::new(([192, 0, 2, 1], 53).into(), Instant::now());
        let ejection = || upstream.ejected_until.load(Relaxed).saturating_sub(upstream.now_ms());
        upstream.record_failure("lost");
        assert!(!upstream.is_failing() && !upstream.is_ejected() && ejection() == 0);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            upstream.record_failure("lost");
            assert!(upstream.is_failing() && upstream.is_ejected() && !upstream.claim_trial());
            let range = seconds * 1000 - 500..=seconds * 1000;
            assert!(range.contains(&ejection()), "{seconds} s: {}", ejection());
        }
        (0..100).for_each(|_| upstream.record_failure("lost"));
        assert!(ejection() <= millis(EJECTION_MAX));
        upstream.record_reply(Duration::from_millis(1));
        assert!(!upstream.is_failing() && !upstream.is_ejected() && ejection() == 0);
    }

    #[test]
    fn one_caller_tries_an_upstream_whose_ejection_is_over() {
        let a_minute_ago = Instant::now() - Duration::from_secs(60);
        let upstream = Upstream::new(([192, 0, 2, 1], 53).into(), a_minute_ago);
        (0..FAILURES_TO_EJECT).for_each(|_| upstream.record_failure("lost"));
        upstream.ejected_until.store(upstream.now_ms(), Relaxed);
        assert!(upstream.is_failing() && !upstream.is_ejected());
        assert!(upstream.claim_trial() && !upstream.claim_trial(), "others wait for the result");
        assert!(upstream.is_ejected());
        assert!(upstream.ejected_until.load(Relaxed) <= upstream.now_ms() + millis(EJECTION_MIN));
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_change_of_an_upstream_is_logged_once() {
        let upstream = Upstream::new(([192, 0, 2, 1], 53).into(), Instant::now());
        let logged = |act: &dyn Fn()| {
            let log = Log::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
            tracing::subscriber::with_default(subscriber, act);
            let text = String::from_utf8(log.0.lock().clone()).expect("text");
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let is_once = |act: &dyn Fn(), text: &str| {
            let (first, again) = (logged(act), logged(act));
            first.len() == 1 && first[0].contains(text) && again.is_empty()
        };
        let failure = || upstream.record_failure("lost");
        assert!(logged(&failure).is_empty());
        assert!(is_once(&failure, "the upstream is ejected"));
        let reply = || upstream.record_reply(Duration::from_millis(1));
        assert!(is_once(&reply, "the upstream answers again"));
        let zone: WireName = b"\x07company\x03net\0"[..].into();
        let returned = || upstream.on_zone_returned(&zone);
        assert!(is_once(&returned, "forwards queries for the zone back to us"));
        assert!(is_once(&|| upstream.on_zone_kept(&zone), "the zone no longer loops"));
        upstream.begin_probe();
        let returned = || upstream.on_probe_returned();
        assert!(is_once(&returned, "forwards queries back to us and is ejected"));
        assert!(logged(&|| upstream.end_probe()).is_empty(), "it came back");
        upstream.begin_probe();
        assert!(is_once(&|| upstream.end_probe(), "the upstream no longer loops"));
    }
}
