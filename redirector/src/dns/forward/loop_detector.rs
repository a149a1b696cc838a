//! Finds upstreams that forward queries back to us: a dnsmasq or systemd-resolved on this host
//! whose own server is the shim, by its configuration or by interception. A query forwarded to such
//! a server circulates until a limit ends it, and no client gets an answer.
//!
//! Each upstream is sent a probe, a query for a unique name. If the probe arrives here, the
//! upstream loops and is ejected until a later probe does not come back. The name is two random
//! labels, since servers answer names below `invalid` themselves (RFC 6761: unbound and
//! systemd-resolved do).

use std::{net::UdpSocket, sync::Arc, time::Duration};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    exchange::Exchange, forwarder::Forwarder, socket_pool::SocketPool, upstream::Upstream,
};
use crate::{
    dns::{
        local::ForwardInfo,
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
/// A probe that has not come back after this time does not count as a loop.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
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
    upstreams: Vec<Arc<Upstream>>,
}

impl LoopDetector {
    pub(crate) fn new() -> Self {
        let label = format!("{:032x}", rand::random::<u128>());
        let process_label = std::iter::once(label.len() as u8).chain(label.bytes()).collect();
        Self { process_label, round: Mutex::default(), changed: Notify::new() }
    }

    /// Probes the upstreams that are due. Never returns.
    pub(crate) async fn watch(&self, forwarder: &Forwarder) {
        let mut since_local = Duration::ZERO;
        loop {
            let local_due = since_local.is_zero();
            let is_due = |upstream: &Arc<Upstream>| {
                !upstream.was_probed() || upstream.loops() || (local_due && is_on_host(upstream))
            };
            self.probe(forwarder.servers().into_iter().filter(is_due).collect()).await;
            tokio::select! {
                () = sleep(CHECK_INTERVAL) => since_local = if since_local >= LOCAL_PROBE_INTERVAL {
                    Duration::ZERO
                } else {
                    since_local + CHECK_INTERVAL
                },
                () = self.changed.notified() => {}
            }
        }
    }

    /// Probes new upstreams at once.
    pub(crate) fn upstreams_changed(&self) {
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
            && let Some(upstream) = index.and_then(|index| round.upstreams.get(index as usize))
        {
            upstream.on_probe_returned();
        }
        true
    }

    /// One round of probes.
    async fn probe(&self, upstreams: Vec<Arc<Upstream>>) {
        let round = {
            let mut round = self.round.lock();
            let number = round.number.wrapping_add(1);
            *round = Round { number, upstreams: upstreams.clone() };
            number
        };
        let (uncounted, sockets) = (Counters::default(), SocketPool::default());
        join_all(upstreams.iter().enumerate().map(async |(index, upstream)| {
            upstream.begin_probe();
            let query = self.query(round, index);
            let info = ForwardInfo { question_end: query.len(), udp_payload: CLASSIC_PAYLOAD };
            let exchange =
                Exchange { query: &query, info: &info, counters: &uncounted, sockets: &sockets };
            // The reply does not matter, only whether the probe arrives here.
            let _ = timeout(PROBE_TIMEOUT, exchange.run(upstream.address, Transport::Udp)).await;
            upstream.end_probe();
        }))
        .await;
    }

    /// A query for the A record of a name that does not exist.
    fn query(&self, round: u32, index: usize) -> Vec<u8> {
        let label = format!("{PREFIX}{round:0DIGITS$x}{index:0DIGITS$x}");
        [
            &[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, FIRST_LABEL as u8],
            label.as_bytes(),
            &self.process_label,
            &[0, 0, 1, 0, 1],
        ]
        .concat()
    }
}

/// Whether the upstream's address is one of this host's.
fn is_on_host(upstream: &Arc<Upstream>) -> bool {
    UdpSocket::bind((upstream.address.ip(), 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn only_an_own_probe_of_this_round_shows_a_loop() {
        let (detector, other) = (LoopDetector::new(), LoopDetector::new());
        let upstream = Arc::new(Upstream::new(([127, 0, 0, 1], 53).into(), Instant::now()));
        *detector.round.lock() = Round { number: 7, upstreams: vec![Arc::clone(&upstream)] };
        assert!(!other.is_own_probe(&detector.query(7, 0)), "another process's");
        let ordinary = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01";
        assert!(!detector.is_own_probe(ordinary));
        upstream.begin_probe();
        assert!(detector.is_own_probe(&detector.query(6, 0)));
        assert!(detector.is_own_probe(&detector.query(7, 1)));
        assert!(!upstream.loops(), "late, or of no upstream");
        assert!(detector.is_own_probe(&detector.query(7, 0).to_ascii_uppercase()), "0x20");
        assert!(upstream.loops());
        upstream.end_probe();
        assert!(upstream.loops());
        upstream.begin_probe();
        upstream.end_probe();
        assert!(!upstream.loops(), "the probe did not come back");
    }
}
