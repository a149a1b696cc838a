//! The last known addresses on disk, so that a restart while DNS is down begins with them.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::atomic_file::{self, FileError};

/// Addresses older than this are not used again: they may belong to somebody else by now.
const OLDEST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The form of the file.
const VERSION: u32 = 1;

/// Why the follower can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The file with the last known addresses can't be read, or is damaged and can't be set aside.
    #[error("failed to load the last known addresses")]
    State(#[from] FileError),
}

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    version: u32,
    pub(super) destinations: Vec<SavedDestination>,
}

/// The addresses of one name as one resolver gave them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedDestination {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) resolver: Option<SocketAddr>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) resolved_at: Timestamp,
    pub(super) ttl_seconds: u64,
}

impl SavedDestination {
    pub(super) fn ttl(&self) -> Duration {
        Duration::from_secs(self.ttl_seconds)
    }
}

impl Saved {
    pub(super) fn new(destinations: Vec<SavedDestination>) -> Self {
        Self { version: VERSION, destinations }
    }

    /// What an earlier run left. A file that can't be understood is set aside and logged, and is no
    /// reason not to start: what it held is asked for again.
    pub(super) fn load(path: &Path, now: Timestamp) -> Result<Vec<SavedDestination>, BackendError> {
        let Some(text) = atomic_file::read_if_present(path)? else { return Ok(vec![]) };
        let problem = match serde_json::from_slice::<Self>(&text) {
            Ok(saved) if saved.version == VERSION => {
                let recent =
                    |saved: &SavedDestination| now.duration_since(saved.resolved_at) <= OLDEST;
                return Ok(saved.destinations.into_iter().filter(recent).collect());
            }
            Ok(saved) => format!("its version is {}, not {VERSION}", saved.version),
            Err(error) => error.to_string(),
        };
        let aside = atomic_file::quarantine(path)?;
        Self::new(vec![]).store(path)?;
        tracing::warn!(path = %path.display(), aside = %aside.display(), problem, "the last known \
            addresses can't be read and are set aside");
        Ok(vec![])
    }

    /// Replaces the file.
    pub(super) fn store(&self, path: &Path) -> Result<(), FileError> {
        let mut text =
            serde_json::to_vec_pretty(self).expect("names, addresses and times are JSON");
        text.push(b'\n');
        atomic_file::write_atomically(path, &text)
    }
}
