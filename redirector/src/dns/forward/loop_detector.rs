//! Finds upstreams that forward queries back to us: a dnsmasq or systemd-resolved on this host
//! whose own server is the shim, by its configuration or by interception. A query forwarded to such
//! a server circulates until a limit ends it, and no client gets an answer.
//!
//! Each upstream is sent a probe, a query for a unique name. If the probe arrives here, the
//! upstream loops and is ejected until a later probe does not come back. The name is two random
//! labels, since servers answer names below `invalid` themselves (RFC 6761: unbound and
//! systemd-resolved do).
//!
//! An upstream on this host may forward some zones only (`server=/ZONE/SHIM` of dnsmasq). For each
//! zone that a route touches it is sent a probe with the same labels in that zone; if that comes
//! back, names in the zone are not forwarded to it. Upstreams on other hosts do not learn zones.
//!
//! A route that is added, or a question that arrives while the same one is being forwarded, is
//! reason for a round of probes at once: the second may be what a loop looks like.

use std::{
    collections::HashSet,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    exchange::Exchange, forwarder::Forwarder, looping_zones::suffixes, socket_pool::SocketPool,
    upstream::Upstream,
};
use crate::{
    dns::{
        local::{ForwardInfo, WireName, Zone},
        stats::Counters,
        wire::{CLASSIC_PAYLOAD, HEADER_LEN},
    },
    net::Transport,
};

/// Interval of probes to upstreams that are new or loop.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Interval of probes to upstreams on this host, whose configuration may change. Upstreams on other
/// hosts are probed once.
const LOCAL_PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// Shortest time between two rounds because of a repeated question.
const SUSPICION_INTERVAL: Duration = Duration::from_millis(500);
/// A probe that has not come back after this time does not count as a loop.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Shortest time between rounds of probes.
const PAUSE: Duration = Duration::from_millis(250);
/// Shortest time before a round for zones that had no room in the last one.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(50);
/// The most zones of a round for one upstream, which may allow 150 queries at a time (dnsmasq).
/// Further ones follow in the next rounds.
const MAX_ZONES: usize = 64;
/// The longest zone that leaves room for a probe's labels, in wire form.
const LONGEST_ZONE: usize = 180;
/// The root in wire form.
const ROOT: &[u8] = &[0];
/// Prefix of the first label, which identifies the query in logs.
const PREFIX: &str = "redirector-loop-";
/// Hexadecimal digits of a number in the first label.
const DIGITS: usize = 8;
/// Length of the first label: the prefix, the number of the round and that of the upstream.
const FIRST_LABEL: usize = PREFIX.len() + 2 * DIGITS;

/// Probes upstreams and recognizes the probes that come back.
#[derive(Debug)]
pub(crate) struct LoopDetector {
    /// The second label with its length, unique to this process.
    process_label: Vec<u8>,
    round: Mutex<Round>,
    /// Wakes [`LoopDetector::watch`] when the upstreams have changed.
    changed: Notify,
}

/// The last round of probes.
#[derive(Debug, Default)]
struct Round {
    number: u32,
    probes: Arc<[Probe]>,
}

/// One probe.
#[derive(Debug)]
struct Probe {
    upstream: Arc<Upstream>,
    /// The zone of the name; none for the root.
    zone: Option<WireName>,
    returned: AtomicBool,
    /// Ends the wait for a reply, which an upstream that loops may never send.
    wake: Notify,
}

impl Probe {
    fn new(upstream: Arc<Upstream>, zone: Option<WireName>) -> Self {
        Self { upstream, zone, returned: AtomicBool::new(false), wake: Notify::new() }
    }

    fn begin(&self) {
        if self.zone.is_none() {
            self.upstream.begin_probe();
        }
    }

    /// It has come back.
    fn on_returned(&self) {
        self.returned.store(true, Relaxed);
        self.wake.notify_one();
        match &self.zone {
            None => self.upstream.on_probe_returned(),
            Some(zone) => self.upstream.on_zone_returned(zone),
        }
    }

    fn end(&self) {
        match &self.zone {
            None => self.upstream.end_probe(),
            Some(zone) if !self.returned.load(Relaxed) => self.upstream.on_zone_kept(zone),
            Some(_) => {}
        }
    }
}

impl LoopDetector {
    pub(crate) fn new() -> Self {
        let label = format!("{:032x}", rand::random::<u128>());
        let process_label = std::iter::once(label.len() as u8).chain(label.bytes()).collect();
        Self { process_label, round: Mutex::default(), changed: Notify::new() }
    }

    /// Probes the upstreams that are due, in the zones that `zone` touches. Never returns.
    pub(crate) async fn watch(&self, forwarder: &Forwarder, zone: impl Fn() -> Arc<Zone>) {
        let mut touched = Touched::default();
        let (mut local_due_at, mut suspicious_at) = (Instant::now(), Instant::now());
        loop {
            let began = Instant::now();
            let suspect = forwarder.repeats().take();
            let local_due = began >= local_due_at;
            if local_due {
                local_due_at = began + LOCAL_PROBE_INTERVAL;
            }
            touched.update(zone());
            let servers = forwarder.servers();
            let due = |upstream| touched.due(upstream, local_due, suspect.as_deref());
            self.probe(servers.iter().flat_map(due).collect()).await;
            touched.first = touched.first.wrapping_add(MAX_ZONES);
            if servers.iter().any(|upstream| touched.has_unknown(upstream)) {
                sleep(CATCH_UP_PAUSE).await;
                continue;
            }
            sleep(PAUSE).await;
            tokio::select! {
                () = sleep(CHECK_INTERVAL.saturating_sub(PAUSE)) => {}
                () = self.changed.notified() => {}
                () = async {
                    sleep_until(suspicious_at).await;
                    forwarder.repeats().wait().await;
                } => suspicious_at = Instant::now() + SUSPICION_INTERVAL,
            }
        }
    }

    /// Probes new upstreams and zones soon.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    /// Whether a query is one of our probes. If it is of the current round, its upstream is
    /// recorded as looping.
    pub(crate) fn is_own_probe(&self, query: &[u8]) -> bool {
        let name = query.get(HEADER_LEN + 1..).unwrap_or_default();
        if !name.get(FIRST_LABEL..).is_some_and(|rest| {
            rest.get(..self.process_label.len())
                .is_some_and(|label| label.eq_ignore_ascii_case(&self.process_label))
        }) {
            return false;
        }
        let number = |at: usize| {
            u32::from_str_radix(std::str::from_utf8(name.get(at..at + DIGITS)?).ok()?, 16).ok()
        };
        let (number, index) = (number(PREFIX.len()), number(PREFIX.len() + DIGITS));
        let round = self.round.lock();
        if number == Some(round.number)
            && let Some(probe) = index.and_then(|index| round.probes.get(index as usize))
        {
            probe.on_returned();
        }
        true
    }

    /// One round of probes.
    async fn probe(&self, probes: Vec<Probe>) {
        let probes: Arc<[Probe]> = probes.into();
        let round = {
            let mut round = self.round.lock();
            let number = round.number.wrapping_add(1);
            *round = Round { number, probes: Arc::clone(&probes) };
            number
        };
        let (uncounted, sockets) = (Counters::default(), SocketPool::default());
        join_all(probes.iter().enumerate().map(async |(index, probe)| {
            probe.begin();
            let query = self.query(round, index, probe.zone.as_deref().unwrap_or(ROOT));
            let info = ForwardInfo { question_end: query.len(), udp_payload: CLASSIC_PAYLOAD };
            let exchange =
                Exchange { query: &query, info: &info, counters: &uncounted, sockets: &sockets };
            // The reply does not matter, only whether the probe arrives here.
            let run = exchange.run(probe.upstream.address, Transport::Udp);
            tokio::select! {
                _ = timeout(PROBE_TIMEOUT, run) => {}
                () = probe.wake.notified() => {}
            }
            probe.end();
        }))
        .await;
    }

    /// A query for the A record of a name in a zone that does not exist.
    fn query(&self, round: u32, index: usize, zone: &[u8]) -> Vec<u8> {
        let label = format!("{PREFIX}{round:0DIGITS$x}{index:0DIGITS$x}");
        [
            &[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, FIRST_LABEL as u8],
            label.as_bytes(),
            &self.process_label,
            zone,
            &[0, 1, 0, 1],
        ]
        .concat()
    }
}

/// The zones that routes touch.
#[derive(Default)]
struct Touched {
    /// The table that they are from.
    of: Option<Arc<Zone>>,
    /// Those with fewer labels first.
    zones: Vec<WireName>,
    all: HashSet<WireName>,
    /// With which of them the next round begins, as there may be no room for all.
    first: usize,
}

impl Touched {
    fn update(&mut self, zone: Arc<Zone>) {
        if self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &zone)) {
            return;
        }
        self.zones = zone.touched();
        self.zones.retain(|zone| zone.len() <= LONGEST_ZONE);
        self.all = self.zones.iter().cloned().collect();
        self.of = Some(zone);
    }

    /// The probes that an upstream is due, those of the zones of a suspicious name first.
    fn due(&self, upstream: &Arc<Upstream>, local_due: bool, suspect: Option<&[u8]>) -> Vec<Probe> {
        let on_host = is_on_host(upstream);
        let probe = |zone| Probe::new(Arc::clone(upstream), zone);
        let has_suspect = suspect.is_some() && on_host;
        let is_due =
            !upstream.was_probed() || upstream.loops() || on_host && (local_due || has_suspect);
        let mut probes: Vec<_> = is_due.then(|| probe(None)).into_iter().collect();
        if !on_host {
            return probes;
        }
        let zones = upstream.looping_zones();
        zones.retain(&self.all);
        let above: HashSet<&[u8]> = suspect.into_iter().flat_map(suffixes).collect();
        let rank = |zone: &WireName| match zone {
            _ if above.contains(zone.as_ref()) => 0,
            _ if zones.is_unknown(zone) => 1,
            _ if zones.is_due(zone) => 2,
            _ => 3,
        };
        let (later, sooner) =
            self.zones.split_at(self.first.checked_rem(self.zones.len()).unwrap_or(0));
        let ranked = sooner.iter().chain(later).map(|zone| (rank(zone), zone));
        let mut due: Vec<_> = ranked.filter(|(rank, _)| local_due || *rank < 3).collect();
        due.sort_by_key(|(rank, _)| *rank);
        let due = due.into_iter().take(MAX_ZONES);
        probes.extend(due.map(|(_, zone)| probe(Some(Arc::clone(zone)))));
        probes
    }

    /// Whether there was no room for the first probe of a zone.
    fn has_unknown(&self, upstream: &Arc<Upstream>) -> bool {
        let zones = upstream.looping_zones();
        is_on_host(upstream) && self.zones.iter().any(|zone| zones.is_unknown(zone))
    }
}

/// Whether the upstream's address is one of this host's.
fn is_on_host(upstream: &Arc<Upstream>) -> bool {
    UdpSocket::bind((upstream.address.ip(), 0)).is_ok()
}

#[cfg(test)]
#[path = "loop_detector_tests.rs"]
mod tests;
