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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, thread::sleep, time::Duration};

    use super::*;
    use crate::config;

    /// Longer than the first ejection, and than the time between two checks of resolv.conf.
    const A_SECOND: Duration = Duration::from_millis(1100);

    fn fail(upstream: &Upstream, times: usize) {
        (0..times).for_each(|_| upstream.record_failure("lost"));
    }

    #[test]
    fn three_upstreams_are_queried_at_once() {
        let server = |last| config::Upstream::Server(([192, 0, 2, last], 53).into());
        let upstreams = Upstreams::new(Nameservers::new((1..=6).map(server).collect(), vec![]));
        let all = upstreams.upstreams();
        let lengths = || {
            let Candidates { first, fallback } = upstreams.candidates(b"\0");
            (first.len(), fallback.len())
        };
        assert_eq!(lengths(), (1, 5), "all are healthy");
        all.iter().for_each(|upstream| fail(upstream, 7));
        assert_eq!(lengths(), (3, 3), "all are ejected");
        all[0].record_reply(Duration::ZERO);
        assert_eq!(lengths(), (1, 5), "one is healthy");
        all.iter().for_each(|upstream| upstream.record_reply(Duration::ZERO));
        all[1..].iter().for_each(|upstream| fail(upstream, 2));
        sleep(A_SECOND);
        assert_eq!(lengths(), (3, 3), "the ejection of the others is over");
    }

    #[test]
    fn a_server_that_stays_in_the_list_keeps_its_health() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").expect("written");
        let path: &Path = file.path();
        let system = vec![config::Upstream::System];
        let upstreams = Upstreams::new(Nameservers::with_resolv_conf(system, vec![], path));
        fail(&upstreams.upstreams()[1], 2);
        fs::write(path, "nameserver 192.0.2.3\nnameserver 192.0.2.2\n").expect("written");
        sleep(A_SECOND);
        let health = upstreams.health();
        let health: Vec<_> = health.iter().map(|at| (at.address.ip(), at.failures)).collect();
        assert_eq!(health, [([192, 0, 2, 3].into(), 0), ([192, 0, 2, 2].into(), 2)]);
    }
}
