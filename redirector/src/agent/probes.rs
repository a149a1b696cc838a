//! Probes: connects to unhealthy backends.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::{backend, datapath::UnhealthyBackend};

/// Probes under way at one time; the others follow at the next tick.
const MAX_PROBES: usize = 64;

/// The probes under way, at most one for each backend of a route, and when the next of each is due.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    tasks: JoinSet<ProbeResult>,
    under_way: HashSet<(u32, IpAddr)>,
    due: HashMap<(u32, IpAddr), Instant>,
}

/// How often backends are probed, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProbePace {
    /// Time between two probes of a backend.
    pub(crate) interval: Duration,
    /// Timeout of one probe.
    pub(crate) timeout: Duration,
}

impl ProbePace {
    /// The longest time between the starts of two probes, for which the first one extends the
    /// ejection of its backend. `check` is the time between two checks of the backends' health.
    pub(crate) fn longest_gap(self, check: Duration) -> Duration {
        self.interval.max(self.timeout) + 2 * check
    }
}

/// The result of a probe.
#[derive(Debug)]
pub(crate) struct ProbeResult {
    /// The index of the route's VIP.
    pub(crate) index: u32,
    /// The backend.
    pub(crate) address: IpAddr,
    /// How long the connect took, or why it failed.
    pub(crate) outcome: Result<Duration, io::Error>,
}

impl Probes {
    /// Probes each unhealthy backend that is due and not being probed; one that was healthy before
    /// is due at once. Returns the probed ones.
    pub(crate) fn send(
        &mut self,
        unhealthy: Vec<UnhealthyBackend>,
        pace: ProbePace,
    ) -> Vec<(u32, IpAddr)> {
        let now = Instant::now();
        let seen: HashSet<_> =
            unhealthy.iter().map(|backend| (backend.index, backend.address)).collect();
        self.due.retain(|backend, _| seen.contains(backend));
        let mut sent = Vec::new();
        for UnhealthyBackend { index, address, port, .. } in unhealthy {
            let backend = (index, address);
            if self.under_way.len() >= MAX_PROBES {
                break;
            }
            if self.due.get(&backend).is_some_and(|due| now < *due)
                || !self.under_way.insert(backend)
            {
                continue;
            }
            self.due.insert(backend, now + pace.interval);
            self.tasks.spawn(async move {
                let outcome = backend::probe(SocketAddr::new(address, port), pace.timeout).await;
                ProbeResult { index, address, outcome }
            });
            sent.push(backend);
        }
        sent
    }

    /// The next result; none at once when no probe is under way.
    pub(crate) async fn next(&mut self) -> Option<ProbeResult> {
        match self.tasks.join_next().await? {
            Ok(result) => {
                self.under_way.remove(&(result.index, result.address));
                Some(result)
            }
            Err(error) => {
                tracing::error!(%error, "a probe panicked");
                self.under_way.clear();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhealthy(port: u16) -> UnhealthyBackend {
        UnhealthyBackend { index: 1, address: IpAddr::from([127, 0, 0, 1]), port, failures: 1 }
    }

    const PACE: ProbePace =
        ProbePace { interval: Duration::from_millis(100), timeout: Duration::from_secs(2) };

    #[tokio::test]
    async fn a_backend_has_one_probe_at_a_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let mut probes = Probes::default();
        assert_eq!(
            probes.send(vec![unhealthy(port), unhealthy(port)], PACE),
            [(1, IpAddr::from([127, 0, 0, 1]))]
        );
        let probed = probes.next().await.expect("one ends");
        probed.outcome.expect("it listens");
        assert!(probes.next().await.is_none(), "one was sent");
        drop(listener);
        tokio::time::sleep(PACE.interval).await;
        probes.send(vec![unhealthy(port)], PACE);
        assert_eq!(
            probes.next().await.expect("it ends").outcome.expect_err("nobody listens").kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[tokio::test]
    async fn a_failing_backend_is_probed_once_per_interval() {
        let pace = ProbePace { interval: Duration::from_secs(60), ..PACE };
        let mut probes = Probes::default();
        assert_eq!(probes.send(vec![unhealthy(1)], pace).len(), 1);
        probes.next().await.expect("it ends");
        assert_eq!(probes.send(vec![unhealthy(1)], pace), []);
        assert_eq!(probes.send(vec![], pace), [], "it works");
        assert_eq!(probes.send(vec![unhealthy(1)], pace).len(), 1);
    }

    #[test]
    fn a_probe_extends_the_ejection_until_the_next_one_starts() {
        let check = Duration::from_millis(500);
        for (interval, timeout, gap) in [(5, 3, 6), (1, 3, 4)] {
            let pace = ProbePace {
                interval: Duration::from_secs(interval),
                timeout: Duration::from_secs(timeout),
            };
            assert_eq!(pace.longest_gap(check), Duration::from_secs(gap));
        }
    }
}
