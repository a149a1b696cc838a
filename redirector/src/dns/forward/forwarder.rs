//! Forwarding: whom to ask when, and what to pass on. The bytes are the client's one way and the
//! upstream's the other.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    exchange::{Exchange, Transport},
    socket_pool::Sockets,
    upstreams::{AT_ONCE, Candidates, Upstream, UpstreamHealth, Upstreams},
};
use crate::dns::{
    access::{Limits, Share, Shares},
    frontend::Asked,
    local::Question,
    stats::Counters,
    wire::{Header, rcode},
};

/// After this time without a reply the next upstream is asked, too; the slow one may still answer.
const NEXT_AFTER: Duration = Duration::from_secs(1);
/// After this time the client gets SERVFAIL. Below the 5 s after which glibc, musl and Go give up.
const BUDGET: Duration = Duration::from_secs(4);

/// Passes queries on.
#[derive(Debug)]
pub(crate) struct Forwarder {
    upstreams: ArcSwap<Upstreams>,
    counters: Arc<Counters>,
    /// One permit per query that waits for an upstream, which also bounds sockets and memory.
    slots: Arc<Semaphore>,
    /// Of these, what each client has.
    shares: Arc<Shares>,
    /// Whether an upstream ever answered anything.
    answered: AtomicBool,
    /// Whom executors asked, where that is intercepted.
    asked: OnceLock<Asked>,
    /// Cancelled when nobody waits for upstreams any more.
    over: CancellationToken,
}

/// How a query goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<'a> {
    pub(crate) transport: Transport,
    /// Those of the runtime that this runs on.
    pub(crate) sockets: &'a Sockets,
    /// Where it arrived, if it was intercepted: then it goes to the resolver that was asked.
    pub(crate) slot: Option<u32>,
}

/// Room for one query that waits, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _slot: OwnedSemaphorePermit,
    _share: Share,
}

/// The client gets SERVFAIL; the counters know why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unanswered;

impl Forwarder {
    pub(crate) fn new(upstreams: Upstreams, counters: Arc<Counters>, limits: Limits) -> Self {
        let (slots, shares) =
            (Arc::new(Semaphore::new(limits.forwarded)), Shares::new(limits.share));
        Self {
            upstreams: ArcSwap::from_pointee(upstreams),
            counters,
            slots,
            shares,
            answered: AtomicBool::new(false),
            asked: OnceLock::new(),
            over: CancellationToken::new(),
        }
    }

    /// Room for one more query of the client. To be asked for before anything is kept of the query:
    /// what a flood sends must not pile up.
    pub(crate) fn admit(&self, client: IpAddr) -> Result<Place, Unanswered> {
        let share = self.shares.take(client);
        if share.is_none() {
            Counters::count(&self.counters.hogged);
        }
        if let (Some(_share), Ok(_slot)) = (share, Arc::clone(&self.slots).try_acquire_owned()) {
            return Ok(Place { _slot, _share });
        }
        Counters::count(&self.counters.overloaded);
        Counters::count(&self.counters.servfail);
        Err(Unanswered)
    }

    /// Lets intercepted queries go to the resolvers that were asked; to be said once.
    pub(crate) fn set_asked(&self, asked: Asked) {
        let _ = self.asked.set(asked);
    }

    /// Whom to ask.
    fn candidates(&self, slot: Option<u32>) -> Candidates {
        let asked = slot.and_then(|slot| self.asked.get()?.candidates(slot));
        asked.unwrap_or_else(|| self.upstreams.load().candidates())
    }

    /// The upstream's reply under the client's ID.
    pub(crate) async fn forward(
        &self,
        query: &[u8],
        question: &Question,
        way: Way<'_>,
        _place: Place,
    ) -> Result<Vec<u8>, Unanswered> {
        let Way { transport, sockets, slot } = way;
        let began = Instant::now();
        let exchange = Exchange { query, question, counters: &self.counters, sockets };
        let mut race = Race { exchange: &exchange, transport, last_resort: None };
        let in_time = tokio::time::timeout(
            BUDGET,
            self.over.run_until_cancelled(race.run(self.candidates(slot))),
        )
        .await;
        self.counters.tally.forwarded.add(began.elapsed(), 1);
        if in_time.is_err() {
            Counters::count(&self.counters.timeouts);
        }
        if let Some(reply) = in_time.ok().flatten().flatten().or(race.last_resort) {
            Counters::count(&self.counters.forwarded);
            self.counters.tally.passed_on(&reply);
            self.answered.store(true, Relaxed);
            return Ok(reply);
        }
        Counters::count(&self.counters.servfail);
        Err(Unanswered)
    }

    /// Asks the upstreams for the root's servers, which every server has something to say about,
    /// until one has ever answered anything. The counters have nothing of it.
    pub(crate) async fn first_contact(&self) {
        const QUERY: [u8; 17] = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
        let question = Question { end: QUERY.len(), payload: 512 };
        let (uncounted, sockets) = (Counters::default(), Sockets::default());
        let exchange = Exchange {
            query: &QUERY,
            question: &question,
            counters: &uncounted,
            sockets: &sockets,
        };
        loop {
            let upstreams = self.upstreams.load_full();
            if self.answered.load(Relaxed) {
                return;
            }
            let Candidates { first, then } = upstreams.candidates();
            let asked: FuturesUnordered<_> = first
                .iter()
                .chain(&then)
                .map(|upstream| exchange.run(upstream.address, Transport::Udp))
                .collect();
            let answers = asked.filter_map(|result| std::future::ready(result.ok()));
            tokio::pin!(answers);
            match tokio::time::timeout(NEXT_AFTER, answers.next()).await {
                Ok(Some(_)) => self.answered.store(true, Relaxed),
                // All refused at once, or none said anything.
                Ok(None) => tokio::time::sleep(NEXT_AFTER).await,
                Err(_) => {}
            }
        }
    }

    /// Whom no answer came from so far; nothing once one came.
    pub(crate) fn awaited(&self) -> Option<Vec<SocketAddr>> {
        let upstreams = self.upstreams.load();
        (!self.answered.load(Relaxed)).then(|| upstreams.nameservers().current().to_vec())
    }

    /// The configured upstreams.
    pub(crate) fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.upstreams.load().upstreams()
    }

    /// Waits for no upstream any more: who does is told that none answered.
    pub(crate) fn give_up(&self) {
        self.over.cancel();
    }

    /// Asks others from now on.
    pub(crate) fn set_upstreams(&self, upstreams: Upstreams) {
        self.upstreams.store(Arc::new(upstreams));
    }

    /// How each upstream is doing.
    pub(crate) fn health(&self) -> Vec<UpstreamHealth> {
        self.upstreams.load().health()
    }

    /// How the resolvers are doing that executors asked.
    pub(crate) fn asked_health(&self) -> Vec<UpstreamHealth> {
        self.asked.get().map(Asked::health).unwrap_or_default()
    }

    /// Why forwarding does not or may not work.
    pub(crate) fn problem(&self) -> Option<String> {
        self.upstreams.load().nameservers().problem()
    }
}

/// The upstreams racing for one query.
struct Race<'a> {
    exchange: &'a Exchange<'a>,
    transport: Transport,
    /// A reply that another upstream may better.
    last_resort: Option<Vec<u8>>,
}

impl Race<'_> {
    /// The first reply that is not a refusal to serve. Nothing, when every upstream failed at once
    /// or the best is a refusal, which is in `last_resort`. While some are only silent it goes on
    /// for ever, asking them again.
    async fn run(&mut self, candidates: Candidates) -> Option<Vec<u8>> {
        if candidates.is_empty() {
            return None;
        }
        let everyone: Vec<_> = candidates.first.iter().chain(&candidates.then).cloned().collect();
        let mut again = everyone.into_iter().cycle();
        let mut waiting = candidates.then.into_iter();
        let mut running: FuturesUnordered<_> = candidates
            .first
            .into_iter()
            .map(|upstream| ask(self.exchange, upstream, self.transport))
            .collect();
        let mut next = Instant::now() + NEXT_AFTER;
        loop {
            let failed = tokio::select! {
                biased;
                Some((upstream, result)) = running.next() => match self.judge(&upstream, result) {
                    Some(reply) => return Some(reply),
                    None => true,
                },
                () = sleep_until(next) => false,
            };
            let room = running.len() < AT_ONCE;
            if room && let Some(upstream) = waiting.next() {
                running.push(ask(self.exchange, upstream, self.transport));
            } else if running.is_empty() || (!failed && self.last_resort.is_some()) {
                return None;
            } else if failed {
                continue;
            } else if room && let Some(upstream) = again.next() {
                running.push(ask(self.exchange, upstream, self.transport));
            }
            next = Instant::now() + NEXT_AFTER;
        }
    }

    /// The reply if it is one to pass on at once.
    fn judge(
        &mut self,
        upstream: &Upstream,
        result: io::Result<(Vec<u8>, Duration)>,
    ) -> Option<Vec<u8>> {
        match result {
            Ok((reply, took)) => {
                upstream.succeeded(took);
                let refusal = Header::read(&reply).is_some_and(|header| {
                    matches!(header.rcode(), rcode::SERVFAIL | rcode::REFUSED)
                });
                if !refusal {
                    return Some(reply);
                }
                self.last_resort.get_or_insert(reply);
            }
            Err(error) if is_our_fault(&error) => {
                tracing::debug!(upstream = %upstream.address, %error, "failed to forward a query")
            }
            Err(error) => upstream.failed(&error.to_string()),
        }
        None
    }
}

/// Errors that say nothing about the upstream: too few descriptors, buffers or memory, a query too
/// large for UDP.
fn is_our_fault(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::MSGSIZE];
    Errno::from_io_error(error).is_some_and(|errno| ours.contains(&errno))
}

/// One exchange, with the time that it took, which blames the upstream when it is slow and goes on
/// waiting.
async fn ask(
    exchange: &Exchange<'_>,
    upstream: Arc<Upstream>,
    transport: Transport,
) -> (Arc<Upstream>, io::Result<(Vec<u8>, Duration)>) {
    let began = Instant::now();
    upstream.asked();
    let run = exchange.run(upstream.address, transport);
    tokio::pin!(run);
    let result = match tokio::time::timeout(NEXT_AFTER, &mut run).await {
        Ok(result) => result,
        Err(_) => {
            upstream.failed("no reply within a second");
            run.await
        }
    };
    (upstream, result.map(|reply| (reply, began.elapsed())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Upstream, net::Nameservers};

    #[tokio::test]
    async fn a_query_too_many_is_unanswered_at_once_and_counted() {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let server = silent.local_addr().expect("an address");
        let counters = Arc::new(Counters::default());
        let forwarder = forwarder(server, &counters);
        let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01x\0\0\x01\0\x01";
        let question = Question { end: query.len(), payload: 512 };
        let client = IpAddr::from([10, 0, 0, 1]);
        let sockets = Sockets::default();
        let over = Way { transport: Transport::Udp, sockets: &sockets, slot: None };
        let first =
            forwarder.forward(query, &question, over, forwarder.admit(client).expect("room"));
        tokio::pin!(first);
        assert!(
            tokio::time::timeout(Duration::from_millis(10), &mut first).await.is_err(),
            "it waits for the upstream"
        );
        assert_eq!(forwarder.admit(client).expect_err("no room"), Unanswered);
        assert_eq!((counters.snapshot().overloaded, counters.snapshot().servfail), (1, 1));
    }

    fn forwarder(server: SocketAddr, counters: &Arc<Counters>) -> Forwarder {
        let nameservers = Nameservers::new(vec![Upstream::Server(server)], vec![]);
        Forwarder::new(
            Upstreams::new(nameservers),
            Arc::clone(counters),
            Limits { forwarded: 1, share: 1, connections: 1, connections_share: 1 },
        )
    }
}
