//! Knocking at backends that have failed, so that they come back as soon as they work, and not
//! before.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::{backend, datapath::UnhealthyBackend};

/// Probes under way at one time; the others come with the next tick.
const MOST: usize = 64;

/// The probes under way, at most one for each backend of a route, and when the next one of each is
/// due.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    tasks: JoinSet<Probed>,
    under_way: HashSet<(u32, IpAddr)>,
    due: HashMap<(u32, IpAddr), Instant>,
}

/// How often and how long is knocked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// From one probe of a backend to the next.
    pub(crate) interval: Duration,
    /// For one probe.
    pub(crate) timeout: Duration,
}

impl Pace {
    /// From the beginning of one probe to the beginning of the next, at the latest: so long the
    /// probe vouches for its backend being set aside. `look` is the time between two looks at what
    /// has failed.
    pub(crate) fn longest_gap(self, look: Duration) -> Duration {
        self.interval.max(self.timeout) + 2 * look
    }
}

/// A probe's end.
#[derive(Debug)]
pub(crate) struct Probed {
    /// The route's VIP.
    pub(crate) index: u32,
    /// The backend.
    pub(crate) address: IpAddr,
    /// How long the connect took, or why it failed.
    pub(crate) outcome: Result<Duration, io::Error>,
}

impl Probes {
    /// Knocks at each of `suspects` that is not being knocked at and whose time has come: at once
    /// at one that was none before. Returns those.
    pub(crate) fn send(
        &mut self,
        suspects: Vec<UnhealthyBackend>,
        pace: Pace,
    ) -> Vec<(u32, IpAddr)> {
        let now = Instant::now();
        let seen: HashSet<_> =
            suspects.iter().map(|suspect| (suspect.index, suspect.address)).collect();
        self.due.retain(|backend, _| seen.contains(backend));
        let mut sent = Vec::new();
        for UnhealthyBackend { index, address, port, .. } in suspects {
            let backend = (index, address);
            if self.under_way.len() >= MOST {
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
                Probed { index, address, outcome }
            });
            sent.push(backend);
        }
        sent
    }

    /// The next probe that ends; none at once when there is none under way.
    pub(crate) async fn next(&mut self) -> Option<Probed> {
        let probed = self.tasks.join_next().await?;
        match probed {
            Ok(probed) => {
                self.under_way.remove(&(probed.index, probed.address));
                Some(probed)
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

    fn suspect(port: u16) -> UnhealthyBackend {
        UnhealthyBackend { index: 1, address: IpAddr::from([127, 0, 0, 1]), port, failures: 1 }
    }

    const PACE: Pace =
        Pace { interval: Duration::from_millis(100), timeout: Duration::from_secs(2) };

    #[tokio::test]
    async fn a_backend_is_knocked_at_once_at_a_time_and_its_answer_comes_back() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let mut probes = Probes::default();
        assert_eq!(
            probes.send(vec![suspect(port), suspect(port)], PACE),
            [(1, IpAddr::from([127, 0, 0, 1]))]
        );
        let probed = probes.next().await.expect("one ends");
        probed.outcome.expect("it listens");
        assert!(probes.next().await.is_none(), "one was sent");
        drop(listener);
        tokio::time::sleep(PACE.interval).await;
        probes.send(vec![suspect(port)], PACE);
        assert_eq!(
            probes.next().await.expect("it ends").outcome.expect_err("nobody listens").kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[tokio::test]
    async fn one_that_goes_on_failing_is_knocked_at_once_in_an_interval_and_one_that_fails_anew_at_once()
     {
        let pace = Pace { interval: Duration::from_secs(60), ..PACE };
        let mut probes = Probes::default();
        assert_eq!(probes.send(vec![suspect(1)], pace).len(), 1);
        probes.next().await.expect("it ends");
        assert_eq!(probes.send(vec![suspect(1)], pace), []);
        assert_eq!(probes.send(vec![], pace), [], "it works");
        assert_eq!(probes.send(vec![suspect(1)], pace).len(), 1);
    }

    #[test]
    fn a_probe_vouches_until_the_next_one_begins() {
        let look = Duration::from_millis(500);
        for (interval, timeout, gap) in [(5, 3, 6), (1, 3, 4)] {
            let pace = Pace {
                interval: Duration::from_secs(interval),
                timeout: Duration::from_secs(timeout),
            };
            assert_eq!(pace.longest_gap(look), Duration::from_secs(gap));
        }
    }
}
