//! A handle that changes what a shim answers and reads its counters.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use arc_swap::Guard;

use super::{bind_error::BindError, handler::Handler, settings::ShimSettings};
use crate::{
    dns::{
        forward::UpstreamHealth,
        local::{Answer, Zone},
        stats::{DnsCounters, QueryStatsSnapshot},
    },
    route::SourceName,
};

/// Changes what a shim answers and reads its counters, before and while it serves.
#[derive(Clone, Debug)]
pub struct Publisher {
    handler: Arc<Handler>,
}

impl Publisher {
    pub(super) fn new(handler: Arc<Handler>) -> Self {
        Self { handler }
    }

    /// Replaces the zone at once and as a whole.
    pub fn publish(&self, mut zone: Zone) {
        zone.inherit_counts(&self.handler.zone());
        self.handler.set_zone(zone);
    }

    /// Changes the answers of these sources at once and together; `None` removes a source. The cost
    /// depends on the number of changes, not on the size of the zone.
    pub fn update(&self, changes: impl IntoIterator<Item = (SourceName, Option<Answer>)>) {
        let current = self.handler.zone();
        let mut next: Option<Zone> = None;
        for (source, answer) in changes {
            if next.as_ref().unwrap_or(&current).get(&source) != answer.as_ref() {
                next.get_or_insert_with(|| Zone::clone(&current)).set(&source, answer);
            }
        }
        if let Some(next) = next {
            self.handler.set_zone(next);
        }
    }

    /// Whether the zone has exactly these sources with these answers.
    pub fn is_current(&self, answers: impl IntoIterator<Item = (SourceName, Answer)>) -> bool {
        self.handler.zone().is_exactly(answers)
    }

    /// Applies the upstreams, clients and TTL of new settings, from the next query on. The listen
    /// addresses do not change.
    ///
    /// # Errors
    ///
    /// [`BindError::Loop`] and [`BindError::NoUpstream`], in which case nothing changes.
    pub fn reconfigure(&self, settings: &ShimSettings) -> Result<(), BindError> {
        self.handler.reconfigure(settings)
    }

    /// The counters.
    pub fn counters(&self) -> DnsCounters {
        DnsCounters::from(self.handler.counters())
    }

    /// The last client that was refused since it is not in `dns.clients`.
    pub fn denied_client(&self) -> Option<IpAddr> {
        self.handler.denied_client()
    }

    /// The same queries by type, code and time.
    pub fn query_stats(&self) -> QueryStatsSnapshot {
        self.handler.counters().stats.snapshot()
    }

    /// The health of each upstream, in the configured order.
    pub fn upstreams(&self) -> Vec<UpstreamHealth> {
        self.handler.forwarder().health()
    }

    /// A function that returns the number of answered queries for a source since it was first
    /// published.
    pub fn answer_counts(&self) -> impl Fn(&SourceName) -> u64 + use<> {
        let zone = Guard::into_inner(self.handler.zone());
        move |source| zone.answer_count(source)
    }

    /// Why other names do not resolve yet, as a message: no upstream has answered anything, or all
    /// of them loop. Until then they are queried again and again.
    pub fn awaited_upstream(&self) -> Option<String> {
        let list = |servers: &[SocketAddr]| {
            servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let upstreams = self.handler.forwarder().upstreams();
        if !upstreams.is_empty() && upstreams.iter().all(|upstream| upstream.loops()) {
            let servers: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
            return Some(format!("every DNS upstream forwards back to us ({})", list(&servers)));
        }
        let servers = self.handler.forwarder().unanswered_servers()?;
        Some(format!("no DNS upstream has answered yet ({})", list(&servers)))
    }

    /// Why forwarding does not or may not work, as a message: no server is left, or resolv.conf
    /// cannot be read.
    pub fn upstream_problem(&self) -> Option<String> {
        self.handler.forwarder().problem()
    }
}
