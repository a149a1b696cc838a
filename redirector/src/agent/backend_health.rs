//! Probes unhealthy backends, so that they return as soon as they work, and not before.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::{
    agent::{
        probes::{ProbePace, ProbeResult, Probes},
        state::reconciler::Reconciler,
    },
    config::Config,
    datapath::EjectionCause,
    error::error_chain,
};

/// Reading the backends' health takes at most one part in this many of the time: for a full pool
/// it is some milliseconds.
const MAX_TIME_SHARE: u32 = 200;

/// The prober of unhealthy backends.
pub(crate) struct BackendHealth {
    probes: Probes,
    /// How often [`BackendHealth::send_probes`] is called.
    tick: Duration,
    /// When the backends' health may be read again.
    due: Instant,
}

impl BackendHealth {
    pub(crate) fn new(tick: Duration) -> Self {
        Self { probes: Probes::default(), tick, due: Instant::now() }
    }

    /// Probes every unhealthy backend. Its ejection is extended until the next probe: otherwise an
    /// application's connect would be the next one to try it. But probes, which may be dropped
    /// where connects are not, hold it out for a limited time only.
    pub(crate) fn send_probes(&mut self, reconciler: &mut Reconciler, config: &Config) {
        let began = Instant::now();
        if began < self.due {
            return;
        }
        let unhealthy = reconciler.datapath.unhealthy_backends();
        self.due = began + began.elapsed() * MAX_TIME_SHARE;
        let mut unhealthy = match unhealthy {
            Ok(unhealthy) => unhealthy,
            Err(error) => {
                return warn!("failed to read the backends' health: {}", error_chain(&error));
            }
        };
        let pace = ProbePace {
            interval: config.health.probe_interval,
            timeout: config.health.connect_timeout,
            check: self.tick + self.due.saturating_duration_since(Instant::now()),
        };
        // A probe learns nothing about a backend that accepts connects and resets the connections.
        unhealthy.retain(|backend| backend.cause == EjectionCause::Connect);
        for (backend, hold) in self.probes.send(unhealthy, pace) {
            if hold.is_zero() {
                continue;
            }
            if let Err(error) = reconciler.datapath.extend_ejection(backend, hold) {
                warn!(
                    backend = %backend.address,
                    "failed to extend a backend's ejection: {}",
                    error_chain(&error)
                );
            }
        }
    }

    /// The next probe that ends; none at once when there is none under way.
    pub(crate) async fn next(&mut self) -> Option<ProbeResult> {
        self.probes.next().await
    }
}

/// Ends the ejection of a backend that accepted a probe. If the probe failed, the backend is
/// ejected for all, and its destination is resolved again before the TTL ends: the load balancer
/// may have moved.
pub(crate) fn on_probe_result(reconciler: &mut Reconciler, result: ProbeResult) {
    let source = reconciler.leases.source_of(result.backend.index).cloned();
    let backend = std::net::SocketAddr::new(result.backend.address, result.backend.port);
    if result.has_failed()
        && let Err(error) = reconciler
            .datapath
            .agree_on_failure(result.backend, result.took)
            .and_then(|()| reconciler.datapath.extend_ejection(result.backend, result.hold))
    {
        warn!(%backend, "failed to eject a backend: {}", error_chain(&error));
    }
    if result.outcome.is_err() {
        if let Some(source) = source {
            reconciler.follower().refresh(&source);
        }
        return;
    }
    if !result.ends_ejection {
        return;
    }
    match reconciler.datapath.reinstate(result.backend) {
        Ok(()) => {
            let source = source.map(|source| source.to_string());
            info!(source, %backend, "a backend accepts connections again");
        }
        Err(error) => {
            warn!(%backend, "failed to reinstate a backend: {}", error_chain(&error));
        }
    }
}
