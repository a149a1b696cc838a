//! The resolvers that executors queried before their DNS was intercepted.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;

use super::{
    upstream::{Upstream, UpstreamHealth},
    upstreams::Candidates,
};

/// The port of a resolver: no other is intercepted.
const DNS_PORT: u16 = 53;

/// Returns the resolver of a slot.
pub type ResolverOfSlot = dyn Fn(u32) -> Option<IpAddr> + Send + Sync;

/// The resolvers by slot, each with its health and counters.
pub(crate) struct InterceptedResolvers {
    resolver_of: Box<ResolverOfSlot>,
    /// Our own addresses, to which nothing is forwarded.
    own: Vec<SocketAddr>,
    started: Instant,
    by_slot: Mutex<Vec<Option<Arc<Upstream>>>>,
}

impl fmt::Debug for InterceptedResolvers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InterceptedResolvers")
            .field("own", &self.own)
            .field("by_slot", &self.by_slot)
            .finish_non_exhaustive()
    }
}

impl InterceptedResolvers {
    pub(crate) fn new(resolver_of: Box<ResolverOfSlot>, own: Vec<SocketAddr>) -> Self {
        Self { resolver_of, own, started: Instant::now(), by_slot: Mutex::default() }
    }

    /// The resolver of `slot` as the only candidate; `None` if the slot is free or the resolver is
    /// one of our own addresses.
    pub(super) fn candidates(&self, slot: u32) -> Option<Candidates> {
        let address = SocketAddr::new((self.resolver_of)(slot)?, DNS_PORT);
        if self.own.contains(&address) {
            return None;
        }
        let index = usize::try_from(slot).ok()?;
        let mut by_slot = self.by_slot.lock();
        if by_slot.len() <= index {
            by_slot.resize(index + 1, None);
        }
        let upstream = by_slot[index].take().filter(|upstream| upstream.address == address);
        let upstream =
            upstream.unwrap_or_else(|| Arc::new(Upstream::intercepted(address, self.started)));
        by_slot[index] = Some(Arc::clone(&upstream));
        Some(Candidates { first: vec![upstream], fallback: Vec::new() })
    }

    /// The health of each resolver that was queried.
    pub(super) fn health(&self) -> Vec<UpstreamHealth> {
        self.by_slot.lock().iter().flatten().map(|upstream| upstream.health()).collect()
    }
}
