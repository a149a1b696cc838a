//! The event loop's side of connect events: names for the pump, the sampling ratio for the kernel,
//! and subscriptions for readers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use crate::{
    agent::state::reconciler::Reconciler,
    control::{EventHub, Subscription, api},
    datapath::Datapath,
    error::error_chain,
    route::SourceName,
};

/// The pump asks for the names of routes.
pub(crate) struct NameQuery {
    /// VIP indices of the routes.
    pub(crate) indices: BTreeSet<u32>,
    /// Those whose backends refused, did not answer or were unreachable.
    pub(crate) failing: BTreeSet<u32>,
    pub(crate) reply: oneshot::Sender<NameReply>,
}

/// The names of routes, and how many events the ring buffer has lost.
pub(crate) struct NameReply {
    pub(crate) sources: BTreeMap<u32, SourceName>,
    pub(crate) lost: u64,
}

/// What the pump asks of the event loop.
pub(crate) enum EventRequest {
    /// The names of routes.
    Names(NameQuery),
    /// The sampling of successes has changed.
    SamplingChanged,
}

/// The event loop's side of connect events.
pub(crate) struct EventFeed {
    hub: EventHub,
    queries: mpsc::Receiver<NameQuery>,
    /// The logarithm to base 2 of the sampling ratio.
    sampling: watch::Receiver<u8>,
    emitted: Arc<AtomicU64>,
}

/// The pump's ends of the channels.
pub(crate) struct PumpChannels {
    pub(crate) hub: EventHub,
    pub(crate) queries: mpsc::Sender<NameQuery>,
    pub(crate) sampling: watch::Sender<u8>,
    pub(crate) emitted: Arc<AtomicU64>,
}

impl EventFeed {
    /// A feed, and the pump's ends of its channels.
    pub(crate) fn new() -> (Self, PumpChannels) {
        let hub = EventHub::default();
        let (queries, received) = mpsc::channel(1);
        let (sampling, mut sampling_changes) = watch::channel(0);
        // The first value has to reach the kernel, too.
        sampling_changes.mark_changed();
        let emitted = Arc::new(AtomicU64::new(0));
        let feed = Self {
            hub: hub.clone(),
            queries: received,
            sampling: sampling_changes,
            emitted: Arc::clone(&emitted),
        };
        (feed, PumpChannels { hub, queries, sampling, emitted })
    }

    /// The pump's next request; never returns once the pump has ended.
    pub(crate) async fn next(&mut self) -> EventRequest {
        tokio::select! {
            Some(query) = self.queries.recv() => EventRequest::Names(query),
            Ok(()) = self.sampling.changed() => EventRequest::SamplingChanged,
            else => std::future::pending().await,
        }
    }

    /// Passes the sampling ratio to the kernel.
    pub(crate) fn apply_sampling(&mut self, datapath: &mut Datapath) {
        let sampling = *self.sampling.borrow_and_update();
        if let Err(error) = datapath.set_event_sampling(Some(sampling)) {
            warn!("failed to set the sampling of events: {}", error_chain(&error));
        }
    }

    /// Where readers subscribe.
    pub(crate) fn hub(&self) -> EventHub {
        self.hub.clone()
    }

    /// A reader's events.
    pub(crate) fn subscribe(&self, query: api::EventQuery) -> Subscription {
        self.hub.subscribe(query)
    }

    /// For `status`.
    pub(crate) fn info(&self, datapath: &Datapath) -> api::EventsInfo {
        api::EventsInfo {
            emitted: self.emitted.load(Relaxed),
            lost: datapath.lost_events().unwrap_or_default(),
            suppressed: datapath.suppressed_events().unwrap_or_default(),
            sampling_ratio: 1 << *self.sampling.borrow(),
            readers: self.hub.readers(),
        }
    }
}

/// Answers the pump. Destinations of routes with failing backends are resolved again before their
/// TTL ends: the load balancer may have moved.
pub(crate) fn answer_names(query: NameQuery, reconciler: &Reconciler) {
    let source_of = |index: u32| reconciler.leases.source_of(index);
    for source in query.failing.iter().filter_map(|&index| source_of(index)) {
        reconciler.follower().refresh(source);
    }
    let named = |index| Some((index, source_of(index)?.clone()));
    let sources = query.indices.into_iter().filter_map(named).collect();
    let lost = reconciler.datapath.lost_events().unwrap_or_default();
    // The pump may have ended.
    let _ = query.reply.send(NameReply { sources, lost });
}
