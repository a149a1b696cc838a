//! The configured upstreams, and which of them to query.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use parking_lot::Mutex;

use super::upstream::{Upstream, UpstreamHealth};
use crate::net::Nameservers;

/// The most concurrent exchanges for one query; each has a socket.
pub(super) const MAX_PARALLEL: usize = 3;

/// The servers that queries are forwarded to.
#[derive(Debug)]
pub(crate) struct Upstreams {
    nameservers: Nameservers,
    started: Instant,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    servers: Arc<[SocketAddr]>,
    upstreams: Vec<Arc<Upstream>>,
}

/// The upstreams for one query.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Upstreams to query immediately: the first healthy one, and those whose ejection is over.
    pub(super) first: Vec<Arc<Upstream>>,
    /// Upstreams to query in this order when the first ones fail or are slow.
    pub(super) fallback: Vec<Arc<Upstream>>,
}

impl Candidates {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.fallback.is_empty()
    }
}

impl Upstreams {
    pub(crate) fn new(nameservers: Nameservers) -> Self {
        Self { nameservers, started: Instant::now(), current: Mutex::default() }
    }

    pub(crate) fn nameservers(&self) -> &Nameservers {
        &self.nameservers
    }

    /// The upstreams to query for a name now, in the configured order, without those that loop. If
    /// all are ejected, [`MAX_PARALLEL`] of them are queried at once.
    pub(super) fn candidates(&self, name: &[u8]) -> Candidates {
        let mut upstreams = self.upstreams();
        upstreams.retain(|upstream| !upstream.loops_for(name));
        if upstreams.iter().all(|upstream| upstream.is_ejected()) {
            let fallback = upstreams.split_off(upstreams.len().min(MAX_PARALLEL));
            return Candidates { first: upstreams, fallback };
        }
        let mut candidates = Candidates::default();
        let mut failing = Vec::new();
        let mut has_healthy = false;
        for upstream in upstreams {
            if !upstream.is_failing() {
                let list =
                    if has_healthy { &mut candidates.fallback } else { &mut candidates.first };
                list.push(upstream);
                has_healthy = true;
            } else if candidates.first.len() < MAX_PARALLEL && upstream.claim_trial() {
                candidates.first.push(upstream);
            } else {
                failing.push(upstream);
            }
        }
        candidates.fallback.append(&mut failing);
        candidates
    }

    /// The health of each server, in the configured order.
    pub(super) fn health(&self) -> Vec<UpstreamHealth> {
        self.upstreams().iter().map(|upstream| upstream.health()).collect()
    }

    /// The current servers. A server that stays in the list keeps its health and counters.
    pub(super) fn upstreams(&self) -> Vec<Arc<Upstream>> {
        let servers = self.nameservers.current();
        let mut current = self.current.lock();
        if current.servers != servers {
            let old = std::mem::take(&mut current.upstreams);
            let existing = |address: &SocketAddr| {
                old.iter().find(|upstream| upstream.address == *address).cloned()
            };
            let added = |address: &SocketAddr| Arc::new(Upstream::new(*address, self.started));
            current.upstreams =
                servers.iter().map(|at| existing(at).unwrap_or_else(|| added(at))).collect();
            current.servers = servers;
        }
        current.upstreams.clone()
    }
}
