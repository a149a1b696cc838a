//! What other processes had removed from the datapath, and was restored.

use jiff::Timestamp;
use tracing::{error, warn};

use crate::{
    datapath::{DatapathError, Healed},
    error::error_chain,
};

/// What was restored since the start.
#[derive(Debug, Default)]
pub(crate) struct Healing {
    count: u64,
    last: Option<(Timestamp, String)>,
    error: Option<String>,
    pins_are_lost: bool,
}

impl Healing {
    /// Records the results of a check.
    pub(crate) fn record(&mut self, checked: Result<Vec<Healed>, DatapathError>) {
        match checked {
            Ok(healed) => {
                self.error = None;
                for Healed { what } in healed {
                    warn!("{what} by another process; restored");
                    self.count += 1;
                    self.last = Some((Timestamp::now(), what));
                }
            }
            Err(error) => {
                let error = error_chain(&error);
                if self.error.as_ref() != Some(&error) {
                    error!("failed to restore the datapath; retrying: {error}");
                    self.error = Some(error);
                }
            }
        }
    }

    /// Records whether the bpf file system is gone.
    pub(crate) fn set_pins_are_lost(&mut self, lost: bool) {
        if lost && !self.pins_are_lost {
            error!("the bpf file system was unmounted: redirecting ends with this process");
        }
        self.pins_are_lost = lost;
    }

    /// How often something was restored, when the last time, and what.
    pub(crate) fn last(&self) -> Option<(u64, Timestamp, &str)> {
        self.last.as_ref().map(|(at, what)| (self.count, *at, what.as_str()))
    }

    /// Why something could not be restored at the last check.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Whether the bpf file system is gone.
    pub(crate) fn pins_are_lost(&self) -> bool {
        self.pins_are_lost
    }
}
