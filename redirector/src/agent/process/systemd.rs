//! Notifications to systemd, if systemd started the agent.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The service manager. Without one nothing is sent.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    /// Half of the watchdog's period.
    watchdog: Option<Duration>,
    notified_at: Instant,
}

impl ServiceManager {
    /// Reads what the service manager requested.
    pub(crate) fn new() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled().map(|period| period / 2),
            notified_at: Instant::now(),
        }
    }

    /// The agent is ready.
    pub(crate) fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    /// The agent reloads its configuration; [`ServiceManager::ready`] follows.
    pub(crate) fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, now]);
        }
    }

    /// The agent is about to end.
    pub(crate) fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }

    /// Passes a heartbeat on as often as the watchdog needs it.
    pub(crate) fn heartbeat(&mut self) {
        if self.watchdog.is_some_and(|period| self.notified_at.elapsed() >= period) {
            notify(&[NotifyState::Watchdog]);
            self.notified_at = Instant::now();
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "failed to notify the service manager");
    }
}
