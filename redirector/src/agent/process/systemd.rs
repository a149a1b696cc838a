//! What systemd is told, when it is systemd that started us.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The service manager's ear. Without a service manager nothing is told.
#[derive(Debug)]
pub(crate) struct Notify {
    /// How often the watchdog wants a sign of life, halved.
    watchdog: Option<Duration>,
    told: Instant,
}

impl Notify {
    /// Reads what the service manager asked for.
    pub(crate) fn new() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled().map(|period| period / 2),
            told: Instant::now(),
        }
    }

    /// The agent does its job.
    pub(crate) fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// The agent reads its configuration again; [`Notify::ready`] follows.
    pub(crate) fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
    }

    /// The agent is about to end.
    pub(crate) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// A sign of life, passed on as often as the watchdog needs it.
    pub(crate) fn alive(&mut self) {
        if self.watchdog.is_some_and(|period| self.told.elapsed() >= period) {
            tell(&[NotifyState::Watchdog]);
            self.told = Instant::now();
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
