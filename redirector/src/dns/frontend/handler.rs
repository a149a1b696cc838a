//! Handles each query: checks limits, decides and counts.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::{ArcSwap, Guard};
use futures_util::future::join;
use parking_lot::Mutex;

use super::{bind_error::BindError, settings::ShimSettings};
use crate::dns::{
    access::{
        Acl, ClientClass, QUERIES_PER_SECOND, REFUSALS_PER_SECOND, RateLimiter, ResourceLimits,
    },
    forward::{Forwarder, ListedResolvers, LoopDetector, Upstreams},
    local::{AnswerPolicy, Decision, Zone, answer, describe_question, refuse},
    stats::Counters,
    wire::ReplyBuffer,
};
use crate::net::{QueryJournal, Unanswered};

/// The log target of single queries.
const QUERY_LOG: &str = "redirector::dns::queries";

/// The client of a query, the address of ours that it queried, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) client: IpAddr,
    pub(super) own: IpAddr,
    pub(super) received_at: Instant,
}

/// What the tasks of all sockets share.
#[derive(Debug)]
pub(super) struct Handler {
    zone: ArcSwap<Zone>,
    acl: ArcSwap<Acl>,
    rate_limiter: RateLimiter,
    /// The last client that was refused for its address.
    denied_client: Mutex<Option<IpAddr>>,
    /// In seconds.
    ttl: AtomicU32,
    /// Our addresses with their actual ports.
    own: Vec<SocketAddr>,
    resolv_conf: PathBuf,
    counters: Arc<Counters>,
    forwarder: Forwarder,
    loop_detector: LoopDetector,
    limits: ResourceLimits,
    /// The queries that wait for upstreams, for the next agent if this one is killed.
    journal: Option<Arc<QueryJournal>>,
    /// What the last agent has received and not answered.
    unanswered: Mutex<Vec<Unanswered>>,
}

impl Handler {
    pub(super) fn new(
        settings: &ShimSettings,
        own: Vec<SocketAddr>,
        upstreams: Upstreams,
        resolv_conf: PathBuf,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        let limits = ResourceLimits::for_this_process();
        Self {
            zone: ArcSwap::default(),
            acl: ArcSwap::from_pointee(settings.acl()),
            rate_limiter: RateLimiter::new(),
            denied_client: Mutex::default(),
            ttl: AtomicU32::new(settings.ttl),
            own,
            resolv_conf,
            counters: Arc::clone(&counters),
            forwarder: Forwarder::new(upstreams, counters, limits),
            loop_detector: LoopDetector::new(),
            limits,
            journal: QueryJournal::new()
                .inspect_err(|error| tracing::warn!(%error, "waiting queries are not kept"))
                .ok()
                .map(Arc::new),
            unanswered: Mutex::default(),
        }
    }

    pub(super) fn journal(&self) -> Option<&Arc<QueryJournal>> {
        self.journal.as_ref()
    }

    /// Sets what the last agent has left.
    pub(super) fn set_unanswered(&self, unanswered: Vec<Unanswered>) {
        *self.unanswered.lock() = unanswered;
    }

    /// Of these, the queries that arrived at this address.
    pub(super) fn take_unanswered(&self, own: SocketAddr) -> Vec<Unanswered> {
        self.unanswered.lock().extract_if(.., |left| left.own == own).collect()
    }

    /// The current answers.
    pub(super) fn zone(&self) -> Guard<Arc<Zone>> {
        self.zone.load()
    }

    /// Replaces the answers at once.
    pub(super) fn set_zone(&self, zone: Zone) {
        self.zone.store(Arc::new(zone));
        self.loop_detector.changed();
    }

    /// Replaces the upstreams, the access list and the TTL, from the next query on.
    ///
    /// # Errors
    ///
    /// [`BindError::Loop`] and [`BindError::NoUpstream`], in which case nothing changes.
    pub(super) fn reconfigure(&self, settings: &ShimSettings) -> Result<(), BindError> {
        let upstreams = settings.open_upstreams(&self.own, &self.resolv_conf)?;
        self.forwarder.set_upstreams(upstreams);
        self.loop_detector.changed();
        self.acl.store(Arc::new(settings.acl()));
        self.ttl.store(settings.ttl, Relaxed);
        Ok(())
    }

    /// Time to live of our records, in seconds.
    pub(super) fn ttl(&self) -> u32 {
        self.ttl.load(Relaxed)
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }

    pub(super) fn limits(&self) -> ResourceLimits {
        self.limits
    }

    /// Forwards the intercepted queries of each slot to its resolver.
    pub(super) fn forward_listed(&self, by_slot: &[Option<IpAddr>]) {
        self.forwarder.set_listed(ListedResolvers::new(by_slot));
    }

    /// Waits for the first answer of an upstream and looks for loops. Never returns.
    pub(super) async fn watch_upstreams(&self) {
        let loops = self.loop_detector.watch(&self.forwarder, || self.zone.load_full());
        join(self.forwarder.wait_for_first_answer(), loops).await;
    }

    /// Whether a client that queries our address is refused.
    pub(super) fn is_denied(&self, client: IpAddr, own: IpAddr) -> bool {
        self.acl.load().classify(client, own) == ClientClass::Denied
    }

    /// The last client that was refused for its address.
    pub(super) fn denied_client(&self) -> Option<IpAddr> {
        *self.denied_client.lock()
    }

    /// Decides about a query and counts it. For [`Decision::Reply`], `reply` contains the message.
    pub(super) fn decide(
        &self,
        query: &[u8],
        request: Request,
        reply: &mut ReplyBuffer,
    ) -> Decision {
        self.counters.queries.increment();
        self.counters.stats.count_query(query);
        let class = self.acl.load().classify(request.client, request.own);
        if class == ClientClass::Denied {
            self.counters.denied_clients.increment();
            *self.denied_client.lock() = Some(request.client);
        }
        if !self.is_within_rate(class, request) {
            self.counters.rate_limited.increment();
            return Decision::Drop;
        }
        let decision = self.decide_for(class, query, reply);
        match decision {
            Decision::Reply(kind) => self.counters.count_reply(kind),
            Decision::Drop => self.counters.dropped.increment(),
            Decision::Forward(_) => {}
        }
        // Names are private: they are logged only if this target is enabled explicitly.
        if tracing::enabled!(target: QUERY_LOG, tracing::Level::TRACE) {
            let question = describe_question(query).unwrap_or_default();
            tracing::trace!(
                target: QUERY_LOG, client = %request.client, %question, ?decision, "query"
            );
        }
        decision
    }

    fn is_within_rate(&self, class: ClientClass, request: Request) -> bool {
        let rate = match class {
            ClientClass::Host => return true,
            ClientClass::Denied => REFUSALS_PER_SECOND,
            ClientClass::Allowed | ClientClass::RealAddresses => QUERIES_PER_SECOND,
        };
        self.rate_limiter.try_acquire(request.client, rate, request.received_at)
    }

    fn decide_for(&self, class: ClientClass, query: &[u8], reply: &mut ReplyBuffer) -> Decision {
        if class == ClientClass::Denied {
            return refuse(query, reply);
        }
        let policy =
            AnswerPolicy { ttl: self.ttl(), real_addresses: class == ClientClass::RealAddresses };
        match answer(query, &self.zone.load(), policy, reply) {
            Decision::Forward(_) if self.loop_detector.is_own_probe(query) => refuse(query, reply),
            decision => decision,
        }
    }
}
