//! Upstreams that ask us in turn: a dnsmasq or systemd-resolved of this host whose own server is
//! the shim, by its configuration or by interception. What is forwarded to one comes back until a
//! limit ends it, and nobody gets an answer.
//!
//! So each upstream is asked for a name that nobody else asks for. When that arrives here, the
//! upstream loops: it is set aside until the name comes back no more. The name is two random
//! labels, since servers answer themselves what is below `invalid` (RFC 6761: unbound and
//! systemd-resolved do).

use std::{
    net::UdpSocket,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    exchange::{Exchange, Transport},
    forwarder::Forwarder,
    socket_pool::Sockets,
    upstreams::Upstream,
};
use crate::dns::{
    local::Question,
    stats::Counters,
    wire::{CLASSIC_PAYLOAD, HEADER},
};

/// How often it is looked whether an upstream is to be asked: one that is new, or loops, is.
const LOOK: Duration = Duration::from_secs(5);
/// How often an upstream on this host is asked: its configuration may change, too. One elsewhere is
/// asked once.
const EVERY: Duration = Duration::from_secs(30);
/// A question that is on its way for longer than this has not come back.
const PATIENCE: Duration = Duration::from_secs(1);
/// What the first label begins with, for whoever meets it in a log of queries.
const PREFIX: &str = "redirector-loop-";
/// Hexadecimal digits of a number in it.
const DIGITS: usize = 8;
/// The first label's length: the prefix, and the numbers of a round and of an upstream.
const FIRST: usize = PREFIX.len() + 2 * DIGITS;

/// Finds out which upstreams loop.
#[derive(Debug)]
pub(crate) struct Loops {
    /// The second label, this process's own, with its length in front.
    own: Vec<u8>,
    /// The last round's number, and whom it asked.
    round: Mutex<(u32, Vec<Arc<Upstream>>)>,
    /// There are other upstreams.
    changed: Notify,
}

impl Loops {
    pub(crate) fn new() -> Self {
        let label = format!("{:032x}", rand::random::<u128>());
        let own = std::iter::once(label.len() as u8).chain(label.bytes()).collect();
        Self { own, round: Mutex::default(), changed: Notify::new() }
    }

    /// Asks those that are to be asked, for ever.
    pub(crate) async fn watch(&self, forwarder: &Forwarder) {
        let mut since = Duration::ZERO;
        loop {
            let everyone = since.is_zero();
            let due = |upstream: &Arc<Upstream>| {
                !upstream.was_probed() || upstream.loops() || (everyone && is_here(upstream))
            };
            self.ask(forwarder.upstreams().into_iter().filter(due).collect()).await;
            tokio::select! {
                () = sleep(LOOK) => since = if since >= EVERY { Duration::ZERO } else { since + LOOK },
                () = self.changed.notified() => {}
            }
        }
    }

    /// There are other upstreams, which are to be asked at once.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    /// Whether a query is one of these questions. The upstream that it was for loops, then.
    pub(crate) fn came_back(&self, query: &[u8]) -> bool {
        let name = query.get(HEADER + 1..).unwrap_or_default();
        if !name.get(FIRST..).is_some_and(|rest| {
            rest.get(..self.own.len()).is_some_and(|label| label.eq_ignore_ascii_case(&self.own))
        }) {
            return false;
        }
        let number = |at: usize| {
            u32::from_str_radix(std::str::from_utf8(name.get(at..at + DIGITS)?).ok()?, 16).ok()
        };
        let (round, which) = (number(PREFIX.len()), number(PREFIX.len() + DIGITS));
        let asked = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        if round == Some(asked.0)
            && let Some(upstream) = which.and_then(|which| asked.1.get(which as usize))
        {
            upstream.looped();
        }
        true
    }

    /// One round.
    async fn ask(&self, upstreams: Vec<Arc<Upstream>>) {
        let round = {
            let mut asked = self.round.lock().unwrap_or_else(PoisonError::into_inner);
            *asked = (asked.0.wrapping_add(1), upstreams.clone());
            asked.0
        };
        let (uncounted, sockets) = (Counters::default(), Sockets::default());
        join_all(upstreams.iter().enumerate().map(async |(which, upstream)| {
            upstream.begin_probe();
            let query = self.query(round, which);
            let question = Question { end: query.len(), payload: CLASSIC_PAYLOAD };
            let exchange = Exchange {
                query: &query,
                question: &question,
                counters: &uncounted,
                sockets: &sockets,
            };
            // Whatever it answers, if anything: what counts is whether the question arrives here.
            let _ = timeout(PATIENCE, exchange.run(upstream.address, Transport::Udp)).await;
            upstream.end_probe();
        }))
        .await;
    }

    /// The question for the address of a name that does not exist.
    fn query(&self, round: u32, which: usize) -> Vec<u8> {
        let label = format!("{PREFIX}{round:0DIGITS$x}{which:0DIGITS$x}");
        [
            &[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, FIRST as u8],
            label.as_bytes(),
            &self.own,
            &[0, 0, 1, 0, 1],
        ]
        .concat()
    }
}

/// Whether an upstream's address is one of this host's.
fn is_here(upstream: &Arc<Upstream>) -> bool {
    UdpSocket::bind((upstream.address.ip(), 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_question_of_this_round_tells_of_a_loop() {
        let (loops, other) = (Loops::new(), Loops::new());
        let upstream =
            Arc::new(Upstream::asked_for(([127, 0, 0, 1], 53).into(), std::time::Instant::now()));
        *loops.round.lock().expect("not poisoned") = (7, vec![Arc::clone(&upstream)]);
        assert!(!other.came_back(&loops.query(7, 0)), "another process's");
        assert!(
            !loops.came_back(b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01")
        );
        upstream.begin_probe();
        assert!(loops.came_back(&loops.query(6, 0)) && loops.came_back(&loops.query(7, 1)));
        assert!(!upstream.loops(), "late, or for nobody");
        assert!(loops.came_back(&loops.query(7, 0).to_ascii_uppercase()), "0x20");
        assert!(upstream.loops());
        upstream.end_probe();
        assert!(upstream.loops());
        upstream.begin_probe();
        upstream.end_probe();
        assert!(!upstream.loops(), "it came back no more");
    }
}
