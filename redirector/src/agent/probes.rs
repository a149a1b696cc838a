//! Probes: connects to unhealthy backends.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    time::Duration,
};

use redirector_common::backend::Health;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    backend,
    datapath::{RouteBackend, UnhealthyBackend},
    error::is_local_error,
};

/// Probes under way at one time; the others follow at the next tick.
const MAX_PROBES: usize = 64;

/// How long probes hold a backend out after its latest failed connect: as long as the programs
/// themselves do at most. Then a connect tries it, since probes may fail where executors do not.
const MAX_HOLD: Duration = Duration::from_nanos(Health::MAX_BACKOFF_NS);

/// The probes under way, at most one for each backend of a route, and what is known of each.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    tasks: JoinSet<ProbeResult>,
    under_way: HashSet<RouteBackend>,
    watched: HashMap<RouteBackend, Watched>,
    sent: usize,
}

/// An unhealthy backend.
#[derive(Debug)]
struct Watched {
    /// When its next probe is due.
    due: Instant,
    /// Its failed connects, whose they were, and when the latest one was seen.
    failures: (u8, Option<u16>, Instant),
    /// Whether it worked until the latest one.
    is_first_failure: bool,
    /// Whether a probe has failed since then: its word counts as a further failure, for all.
    agrees: bool,
    /// Whether a probe has said that it works, or this host cannot find out. From then on
    /// connects decide.
    settled: bool,
}

impl Watched {
    /// A backend that is due at once.
    fn new(backend: &UnhealthyBackend, now: Instant) -> Self {
        Self {
            due: now,
            failures: (backend.failures, backend.client, now),
            is_first_failure: backend.is_first_failure,
            agrees: false,
            settled: false,
        }
    }

    /// Notes a further failed connect. That a probe agreed with the last one is none. If the
    /// backend worked in between, which may be too short a time to be seen, what is known of it is
    /// outdated.
    fn note(&mut self, backend: &UnhealthyBackend, now: Instant) {
        if backend.is_first_failure && !self.is_first_failure {
            *self = Self::new(backend, now);
            return;
        }
        self.is_first_failure = backend.is_first_failure;
        let (failures, client, seen) = self.failures;
        if (failures, client) == (backend.failures, backend.client) {
            return;
        }
        let agreed = self.agrees && client.is_some() && backend.client.is_none();
        self.agrees = false;
        self.failures = (backend.failures, backend.client, if agreed { seen } else { now });
    }
}

/// How often backends are probed, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProbePace {
    /// Time between two probes of a backend.
    pub(crate) interval: Duration,
    /// Timeout of one probe.
    pub(crate) timeout: Duration,
    /// Time between two checks of the backends' health, which probes wait for.
    pub(crate) check: Duration,
}

impl ProbePace {
    /// The longest time between the starts of two probes, for which the first one extends the
    /// ejection of its backend.
    fn longest_gap(self) -> Duration {
        self.interval.max(self.timeout) + 2 * self.check
    }
}

/// The result of a probe.
#[derive(Debug)]
pub(crate) struct ProbeResult {
    /// The backend.
    pub(crate) backend: RouteBackend,
    /// How long it took.
    pub(crate) took: Duration,
    /// How long the backend is held out if the probe failed.
    pub(crate) hold: Duration,
    /// How long the connect took, or why it failed.
    pub(crate) outcome: Result<Duration, io::Error>,
    /// Whether the backend's ejection ends: the probe is the first one that was accepted. If
    /// connects fail nevertheless, they know better than the next one.
    pub(crate) ends_ejection: bool,
}

impl Probes {
    /// Probes each unhealthy backend that is due and not being probed; one that was healthy before
    /// is due at once. Returns the probed ones, and for how long each is held out.
    pub(crate) fn send(
        &mut self,
        unhealthy: Vec<UnhealthyBackend>,
        pace: ProbePace,
    ) -> Vec<(RouteBackend, Duration)> {
        let now = Instant::now();
        let seen: HashSet<_> = unhealthy.iter().map(UnhealthyBackend::place).collect();
        self.watched.retain(|backend, _| seen.contains(backend));
        let mut sent = Vec::new();
        for backend in unhealthy {
            if self.under_way.len() >= MAX_PROBES {
                break;
            }
            let key = backend.place();
            let watched = self.watched.entry(key).or_insert_with(|| Watched::new(&backend, now));
            watched.note(&backend, now);
            if now < watched.due || !self.under_way.insert(key) {
                continue;
            }
            watched.due = now + pace.interval;
            let left = MAX_HOLD.saturating_sub(now - watched.failures.2);
            let hold = if watched.settled { Duration::ZERO } else { left };
            sent.push((key, hold.min(pace.longest_gap())));
            self.spawn(backend, hold, pace);
        }
        sent
    }

    /// Probes from one of the backend's source addresses, from each in turn.
    fn spawn(&mut self, unhealthy: UnhealthyBackend, hold: Duration, pace: ProbePace) {
        let (backend, sources) = (unhealthy.place(), unhealthy.sources);
        self.sent = self.sent.wrapping_add(1);
        let source = sources.get(self.sent % sources.len().max(1)).copied();
        self.tasks.spawn(async move {
            let (began, at) = (Instant::now(), SocketAddr::new(backend.address, backend.port));
            let outcome = backend::probe(at, source, pace.timeout).await;
            let took = began.elapsed();
            let hold = hold.saturating_sub(took).min(pace.longest_gap());
            ProbeResult { backend, took, hold, outcome, ends_ejection: false }
        });
    }

    /// The next result; none at once when no probe is under way.
    pub(crate) async fn next(&mut self) -> Option<ProbeResult> {
        match self.tasks.join_next().await? {
            Ok(mut result) => {
                self.under_way.remove(&result.backend);
                if let Some(watched) = self.watched.get_mut(&result.backend) {
                    result.ends_ejection = result.outcome.is_ok() && !watched.settled;
                    watched.settled |= !result.has_failed();
                    watched.agrees |= result.has_failed();
                }
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

impl ProbeResult {
    /// Whether the probe says that the backend does not work.
    pub(crate) fn has_failed(&self) -> bool {
        self.outcome.as_ref().is_err_and(is_of_backend)
    }
}

/// An error says nothing about the backend if this host lacks descriptors, memory, or the source
/// address that executors connect from.
fn is_of_backend(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::AddrNotAvailable && !is_local_error(error)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use rustix::io::Errno;

    use super::*;
    use crate::datapath::EjectionCause;

    fn unhealthy(port: u16) -> UnhealthyBackend {
        let address = IpAddr::from([127, 0, 0, 1]);
        UnhealthyBackend {
            index: 1,
            address,
            port,
            failures: 1,
            is_first_failure: false,
            client: None,
            cause: EjectionCause::Connect,
            sources: vec![],
        }
    }

    /// Has a longer gap than [`MAX_HOLD`].
    const PACE: ProbePace = ProbePace {
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(2),
        check: MAX_HOLD,
    };

    #[tokio::test]
    async fn a_backend_has_one_probe_at_a_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let mut probes = Probes::default();
        assert_eq!(
            probes.send(vec![unhealthy(port), unhealthy(port)], PACE),
            [(unhealthy(port).place(), MAX_HOLD)]
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

    #[test]
    fn a_probe_that_this_host_could_not_make_says_nothing() {
        let failed = |errno: Errno| is_of_backend(&errno.into());
        assert!(failed(Errno::CONNREFUSED) && failed(Errno::TIMEDOUT));
        assert!(!failed(Errno::MFILE) && !failed(Errno::NOBUFS) && !failed(Errno::ADDRNOTAVAIL));
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

    #[tokio::test]
    async fn probes_hold_a_backend_for_thirty_seconds_per_failure() {
        let pace = ProbePace { interval: Duration::ZERO, ..PACE };
        let mut probes = Probes::default();
        let tenant = Some(3);
        for (failures, client, age, held) in [
            (1, tenant, 0, 30),
            (1, tenant, 20, 10),
            (1, None, 25, 5),
            (1, None, 31, 0),
            (2, None, 0, 30),
        ] {
            let backend = UnhealthyBackend { failures, client, ..unhealthy(1) };
            if let Some(watched) = probes.watched.get_mut(&backend.place()) {
                let since = Instant::now().checked_sub(Duration::from_secs(age));
                watched.failures.2 = since.expect("this host is up for a minute");
            }
            let hold = probes.send(vec![backend], pace)[0].1;
            assert!(hold <= Duration::from_secs(held), "{hold:?}");
            assert!(hold + Duration::from_secs(5) >= Duration::from_secs(held), "{hold:?}");
            let probed = probes.next().await.expect("it ends");
            probed.outcome.expect_err("nobody listens");
            assert!(probed.hold <= hold.saturating_sub(probed.took), "{:?}", probed.hold);
        }
    }

    #[tokio::test]
    async fn only_the_first_accepted_probe_ends_an_ejection() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let pace = ProbePace { interval: Duration::ZERO, ..PACE };
        let mut probes = Probes::default();
        for (failures, ends, hold) in
            [(1, true, MAX_HOLD), (1, false, Duration::ZERO), (2, false, Duration::ZERO)]
        {
            let backend = UnhealthyBackend { failures, ..unhealthy(port) };
            assert_eq!(probes.send(vec![backend], pace)[0].1, hold);
            assert_eq!(probes.next().await.expect("it ends").ends_ejection, ends);
        }
        probes.send(vec![], pace);
        probes.send(vec![unhealthy(port)], pace);
        assert!(probes.next().await.expect("it ends").ends_ejection, "it worked in between");
    }

    #[tokio::test]
    async fn a_backend_that_worked_in_between_is_probed_at_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let mut probes = Probes::default();
        probes.send(vec![unhealthy(port)], PACE);
        assert!(probes.next().await.expect("it ends").ends_ejection);
        drop(listener);
        let backend =
            || UnhealthyBackend { is_first_failure: true, client: Some(3), ..unhealthy(port) };
        let sent = probes.send(vec![backend()], PACE);
        assert_eq!(sent, [(backend().place(), MAX_HOLD)], "at once, and its word counts");
        probes.next().await.expect("it ends").outcome.expect_err("nobody listens");
        assert_eq!(probes.send(vec![backend()], PACE), [], "not again for the same failure");
    }

    #[tokio::test]
    async fn a_source_that_this_host_lacks_says_nothing() {
        let pace = ProbePace { interval: Duration::ZERO, ..PACE };
        let mut probes = Probes::default();
        for hold in [MAX_HOLD, Duration::ZERO] {
            let sources = vec![IpAddr::from([203, 0, 113, 1])];
            let backend = UnhealthyBackend { sources, ..unhealthy(1) };
            let sent = probes.send(vec![backend], pace)[0].1;
            assert!(sent <= hold && (sent.is_zero() == hold.is_zero()), "{sent:?}");
            assert!(!probes.next().await.expect("it ends").ends_ejection);
        }
    }

    #[tokio::test]
    async fn a_probe_holds_its_backend_until_the_next_one_starts() {
        for (interval, timeout, gap) in [(5, 3, 6), (1, 3, 4)] {
            let pace = ProbePace {
                interval: Duration::from_secs(interval),
                timeout: Duration::from_secs(timeout),
                check: Duration::from_millis(500),
            };
            let mut probes = Probes::default();
            let sent = probes.send(vec![unhealthy(1)], pace);
            assert_eq!(sent, [(unhealthy(1).place(), Duration::from_secs(gap))]);
            let probed = probes.next().await.expect("it ends");
            assert!(probed.has_failed(), "nobody listens");
            assert_eq!(probed.hold, Duration::from_secs(gap), "an agreement begins a new ejection");
        }
    }
}
