//! Liveness and readiness, which the agent sets and the admin listener shows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

/// Liveness and readiness of the agent.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<HealthState>>);

#[derive(Debug)]
struct HealthState {
    heartbeat_at: Instant,
    not_ready: Vec<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(HealthState {
            heartbeat_at: Instant::now(),
            not_ready: vec!["starting".into()],
        })))
    }
}

impl Health {
    /// Records a heartbeat of the event loop.
    pub fn heartbeat(&self) {
        self.state().heartbeat_at = Instant::now();
    }

    /// Sets why the agent is not ready; empty when it is.
    pub fn set_not_ready(&self, reasons: Vec<String>) {
        self.state().not_ready = reasons;
    }

    /// Why the agent is not ready; empty when it is.
    pub(super) fn not_ready(&self) -> Vec<String> {
        self.state().not_ready.clone()
    }

    /// The time since the last heartbeat.
    pub(super) fn heartbeat_age(&self) -> Duration {
        self.state().heartbeat_at.elapsed()
    }

    /// As if the last heartbeat were so old.
    #[cfg(test)]
    pub(super) fn set_heartbeat_age(&self, age: Duration) {
        self.state().heartbeat_at =
            Instant::now().checked_sub(age).expect("the machine has been up that long");
    }

    fn state(&self) -> MutexGuard<'_, HealthState> {
        self.0.lock()
    }
}
