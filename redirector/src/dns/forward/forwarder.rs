//! Forwards the clients' queries and the upstreams' replies, whose bytes stay unchanged but for the
//! ID.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    exchange::Exchange,
    listed_resolvers::ListedResolvers,
    race::{NEXT_UPSTREAM_AFTER, Race},
    repeats::{Repeats, TYPE_AND_CLASS},
    socket_pool::SocketPool,
    upstream::{Upstream, UpstreamHealth},
    upstreams::{Candidates, Upstreams},
};
use crate::{
    dns::{access::ResourceLimits, local::ForwardInfo, stats::Counters, wire::HEADER_LEN},
    net::{ClientShare, ClientShares, NoShare, Transport},
};

/// The client gets SERVFAIL if there is no answer after this time, which is shorter than the 5 s
/// after which glibc, musl and Go give up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// Forwards queries to the configured upstreams, or to the resolver that was intercepted.
#[derive(Debug)]
pub(crate) struct Forwarder {
    upstreams: ArcSwap<Upstreams>,
    counters: Arc<Counters>,
    limits: ResourceLimits,
    /// One unit per query that waits for an upstream, which also bounds sockets and memory.
    waiting: Arc<ClientShares>,
    /// Questions that may have come back from an upstream.
    repeats: Repeats,
    /// Whether any upstream has ever answered.
    any_answer: AtomicBool,
    /// Set when DNS is intercepted at sockets.
    listed: OnceLock<Listed>,
    /// Cancelled when no query may wait any longer.
    cancelled: CancellationToken,
}

/// The resolvers that are intercepted at sockets. Each has waiting places of its own: a silent one
/// delays nobody who queries another.
#[derive(Debug)]
struct Listed {
    resolvers: ListedResolvers,
    waiting: Vec<Arc<ClientShares>>,
}

/// The properties of a query's arrival that determine how it is forwarded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueryContext<'a> {
    pub(crate) transport: Transport,
    /// The sockets of the current runtime.
    pub(crate) sockets: &'a SocketPool,
    /// The slot of an intercepted query, which goes to the resolver of that slot.
    pub(crate) slot: Option<u32>,
}

/// Permission for one query to wait for an upstream, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _share: ClientShare,
}

/// The client gets SERVFAIL; the counters have the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer;

impl Forwarder {
    pub(crate) fn new(
        upstreams: Upstreams,
        counters: Arc<Counters>,
        limits: ResourceLimits,
    ) -> Self {
        Self {
            upstreams: ArcSwap::from_pointee(upstreams),
            counters,
            waiting: ClientShares::new(limits.forwarded),
            limits,
            repeats: Repeats::new(),
            any_answer: AtomicBool::new(false),
            listed: OnceLock::new(),
            cancelled: CancellationToken::new(),
        }
    }

    /// A permit for one more query of the client. Get it before copying the query, so that a flood
    /// does not fill memory.
    pub(crate) fn admit(&self, client: IpAddr, slot: Option<u32>) -> Result<Permit, NoAnswer> {
        let listed = || self.listed.get()?.waiting.get(usize::try_from(slot?).ok()?);
        match listed().unwrap_or(&self.waiting).try_acquire(client) {
            Ok(_share) => Ok(Permit { _share }),
            Err(cause) => {
                if cause == NoShare::ClientLimit {
                    self.counters.client_over_limit.increment();
                }
                self.counters.overloaded.increment();
                self.counters.servfail.increment();
                Err(NoAnswer)
            }
        }
    }

    /// Forwards intercepted queries to these resolvers, which share most of the waiting places.
    /// Only the first call has an effect.
    pub(crate) fn set_listed(&self, resolvers: ListedResolvers) {
        let used = resolvers.upstreams().count();
        let each = self.limits.forwarded / 4 * 3 / used.max(1);
        let waiting: Vec<_> = (0..resolvers.len()).map(|_| ClientShares::new(each)).collect();
        self.waiting.set_capacity(self.limits.forwarded - each * used);
        let _ = self.listed.set(Listed { resolvers, waiting });
    }

    /// The upstream's reply with the client's ID.
    pub(crate) async fn forward(
        &self,
        query: &[u8],
        info: &ForwardInfo,
        context: QueryContext<'_>,
        _permit: Permit,
    ) -> Result<Vec<u8>, NoAnswer> {
        let QueryContext { transport, sockets, slot } = context;
        let began = Instant::now();
        let question = query.get(HEADER_LEN..info.question_end).unwrap_or_default();
        let name = &question[..question.len().saturating_sub(TYPE_AND_CLASS)];
        let _under_way = self.repeats.begin(question);
        let exchange = Exchange { query, info, counters: &self.counters, sockets };
        let mut race = Race::new(&exchange, transport);
        let run = self.cancelled.run_until_cancelled(race.run(self.candidates(slot, name)));
        let result = timeout(ANSWER_TIMEOUT, run).await;
        self.counters.stats.forward_latency.record(began.elapsed(), 1);
        if result.is_err() {
            self.counters.timeouts.increment();
        }
        let reply = result.ok().flatten().flatten().or_else(|| race.into_last_resort());
        let Some(reply) = reply else {
            self.counters.servfail.increment();
            return Err(NoAnswer);
        };
        self.counters.forwarded.increment();
        self.counters.stats.count_upstream_reply(&reply);
        self.any_answer.store(true, Relaxed);
        Ok(reply)
    }

    fn candidates(&self, slot: Option<u32>, name: &[u8]) -> Candidates {
        let listed = |slot| Some(self.listed.get()?.resolvers.candidates(slot, name));
        slot.and_then(listed).unwrap_or_else(|| self.upstreams.load().candidates(name))
    }

    /// Queries the upstreams for the root's NS records, for which every server has a reply, until
    /// one of them has answered any query. These queries are not counted.
    pub(crate) async fn wait_for_first_answer(&self) {
        const ROOT: [u8; 1] = [0];
        const ROOT_NS: [u8; 17] = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
        let info = ForwardInfo { question_end: ROOT_NS.len(), udp_payload: 512 };
        let (uncounted, sockets) = (Counters::default(), SocketPool::default());
        let exchange =
            Exchange { query: &ROOT_NS, info: &info, counters: &uncounted, sockets: &sockets };
        while !self.any_answer.load(Relaxed) {
            let Candidates { first, fallback } = self.upstreams.load_full().candidates(&ROOT);
            let exchanges: FuturesUnordered<_> = first
                .iter()
                .chain(&fallback)
                .map(|upstream| exchange.run(upstream.address, Transport::Udp))
                .collect();
            let answers = exchanges.filter_map(|result| std::future::ready(result.ok()));
            tokio::pin!(answers);
            match timeout(NEXT_UPSTREAM_AFTER, answers.next()).await {
                Ok(Some(_)) => self.any_answer.store(true, Relaxed),
                // All failed at once, or there is none.
                Ok(None) => sleep(NEXT_UPSTREAM_AFTER).await,
                Err(_) => {}
            }
        }
    }

    /// The configured servers, while none of them has answered yet.
    pub(crate) fn unanswered_servers(&self) -> Option<Vec<SocketAddr>> {
        let upstreams = self.upstreams.load();
        (!self.any_answer.load(Relaxed)).then(|| upstreams.nameservers().current().to_vec())
    }

    /// The configured upstreams.
    pub(crate) fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.upstreams.load().upstreams()
    }

    /// Every server that a loop may lead through: the configured upstreams and the resolvers that
    /// are intercepted.
    pub(crate) fn servers(&self) -> Vec<Arc<Upstream>> {
        let listed = self.listed.get().into_iter().flat_map(|listed| listed.resolvers.upstreams());
        self.upstreams().into_iter().chain(listed.cloned()).collect()
    }

    /// The questions that may have come back from an upstream.
    pub(super) fn repeats(&self) -> &Repeats {
        &self.repeats
    }

    /// Ends every query that waits for an upstream with [`NoAnswer`].
    pub(crate) fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Replaces the configured upstreams.
    pub(crate) fn set_upstreams(&self, upstreams: Upstreams) {
        self.upstreams.store(Arc::new(upstreams));
    }

    /// The health of each configured upstream.
    pub(crate) fn health(&self) -> Vec<UpstreamHealth> {
        self.upstreams.load().health()
    }

    /// Why forwarding does not or may not work, as a message.
    pub(crate) fn problem(&self) -> Option<String> {
        self.upstreams.load().nameservers().problem()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Upstream, net::Nameservers};

    #[tokio::test]
    async fn a_query_over_the_limit_fails_at_once_and_is_counted() {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let server = silent.local_addr().expect("an address");
        let counters = Arc::new(Counters::default());
        let forwarder = forwarder(server, &counters);
        let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01x\0\0\x01\0\x01";
        let info = ForwardInfo { question_end: query.len(), udp_payload: 512 };
        let client = IpAddr::from([10, 0, 0, 1]);
        let sockets = SocketPool::default();
        let context = QueryContext { transport: Transport::Udp, sockets: &sockets, slot: None };
        let permit = forwarder.admit(client, None).expect("a permit");
        let first = forwarder.forward(query, &info, context, permit);
        tokio::pin!(first);
        assert!(
            timeout(Duration::from_millis(10), &mut first).await.is_err(),
            "it waits for the upstream"
        );
        assert_eq!(forwarder.admit(client, None).expect_err("no permit"), NoAnswer);
        let counters = crate::dns::stats::DnsCounters::from(&*counters);
        assert_eq!((counters.overloaded, counters.servfail), (1, 1));
    }

    #[tokio::test]
    async fn a_silent_resolver_takes_no_place_of_another() {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let server = silent.local_addr().expect("an address");
        let limits = ResourceLimits { forwarded: 64, connections: 1 };
        let nameservers = Nameservers::new(vec![Upstream::Server(server)], vec![]);
        let forwarder = Forwarder::new(Upstreams::new(nameservers), Arc::default(), limits);
        let resolver = |last| Some(IpAddr::from([192, 0, 2, last]));
        forwarder.set_listed(ListedResolvers::new(&[resolver(1), resolver(2)]));
        let clients = || (1..=64).map(|last| IpAddr::from([10, 0, 0, last]));
        let held: Vec<_> =
            clients().filter_map(|client| forwarder.admit(client, Some(0)).ok()).collect();
        assert_eq!(held.len(), 24, "each resolver has its part of all places");
        assert_eq!(
            forwarder.admit([10, 0, 1, 1].into(), Some(0)).expect_err("the first is full"),
            NoAnswer
        );
        let second: Vec<_> =
            clients().filter_map(|client| forwarder.admit(client, Some(1)).ok()).collect();
        assert_eq!(second.len(), 24, "the second is not");
        let others = clients().filter_map(|client| forwarder.admit(client, None).ok());
        assert_eq!(others.collect::<Vec<_>>().len(), 16, "nor are the upstreams");
    }

    #[test]
    fn upstreams_that_are_replaced_are_no_longer_queried() {
        let (old, new) = (([192, 0, 2, 1], 53).into(), ([192, 0, 2, 2], 53).into());
        let forwarder = forwarder(old, &Arc::default());
        let servers = || forwarder.servers().iter().map(|at| at.address).collect::<Vec<_>>();
        assert_eq!((servers(), forwarder.problem()), (vec![old], None));
        forwarder.set_listed(ListedResolvers::new(&[Some([192, 0, 2, 9].into()), None]));
        assert_eq!(servers(), [old, ([192, 0, 2, 9], 53).into()]);
        let upstreams = |list| Upstreams::new(Nameservers::new(list, vec![]));
        forwarder.set_upstreams(upstreams(vec![Upstream::Server(new)]));
        assert_eq!(forwarder.candidates(None, b"\0").first[0].address, new);
        forwarder.set_upstreams(upstreams(vec![]));
        let problem = forwarder.problem().expect("no server");
        assert!(problem.contains("`dns.upstreams` names no server"), "{problem}");
    }

    fn forwarder(server: SocketAddr, counters: &Arc<Counters>) -> Forwarder {
        let nameservers = Nameservers::new(vec![Upstream::Server(server)], vec![]);
        let limits = ResourceLimits { forwarded: 1, connections: 1 };
        Forwarder::new(Upstreams::new(nameservers), Arc::clone(counters), limits)
    }
}
