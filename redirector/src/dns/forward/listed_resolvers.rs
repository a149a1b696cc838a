//! The resolvers whose queries are intercepted at sockets: fixed when the agent starts, each with a
//! port of the shim.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use super::{upstream::Upstream, upstreams::Candidates};

/// The port of a resolver: no other is intercepted.
const DNS_PORT: u16 = 53;

/// The resolvers by slot, each with its health and counters.
#[derive(Debug, Default)]
pub(crate) struct ListedResolvers {
    by_slot: Vec<Option<Arc<Upstream>>>,
}

impl ListedResolvers {
    pub(crate) fn new(by_slot: &[Option<IpAddr>]) -> Self {
        let started = Instant::now();
        let upstream = |resolver: &Option<IpAddr>| {
            let address = SocketAddr::new((*resolver)?, DNS_PORT);
            Some(Arc::new(Upstream::new(address, started)))
        };
        Self { by_slot: by_slot.iter().map(upstream).collect() }
    }

    /// The resolver of `slot` as the only candidate for a name; none for an unused slot, or if it
    /// loops.
    pub(super) fn candidates(&self, slot: u32, name: &[u8]) -> Candidates {
        let upstream = usize::try_from(slot).ok().and_then(|slot| self.by_slot.get(slot)?.clone());
        let first = upstream.into_iter().filter(|upstream| !upstream.loops_for(name)).collect();
        Candidates { first, fallback: Vec::new() }
    }

    /// The resolvers.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.by_slot.iter().flatten()
    }

    /// The number of slots.
    pub(super) fn len(&self) -> usize {
        self.by_slot.len()
    }
}
