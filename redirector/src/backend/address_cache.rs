//! The last known addresses on disk, for a restart while DNS is down.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    atomic_file::{self, FileError, Quarantine},
    error::error_chain,
};

/// Older addresses are discarded: they may belong to another host by now.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The version of the file format.
const VERSION: u32 = 1;

/// Why the follower cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The file cannot be read.
    #[error("failed to load the last known addresses")]
    State(#[from] FileError),
}

/// The content of the file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AddressCache {
    version: u32,
    pub(super) destinations: Vec<CachedDestination>,
}

/// The addresses of one name from one resolver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CachedDestination {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) resolver: Option<SocketAddr>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) resolved_at: Timestamp,
    pub(super) ttl_seconds: u64,
}

impl CachedDestination {
    pub(super) fn ttl(&self) -> Duration {
        Duration::from_secs(self.ttl_seconds)
    }
}

impl AddressCache {
    pub(super) fn new(destinations: Vec<CachedDestination>) -> Self {
        Self { version: VERSION, destinations }
    }

    /// Reads the addresses of an earlier run. A file that cannot be parsed is quarantined with a
    /// warning: it is not needed, since its names are looked up again.
    pub(super) fn load(
        path: &Path,
        now: Timestamp,
    ) -> Result<Vec<CachedDestination>, BackendError> {
        let Some(text) = atomic_file::read_if_present(path)? else { return Ok(vec![]) };
        let problem = match serde_json::from_slice::<Self>(&text) {
            Ok(cached) if cached.version == VERSION => {
                let recent =
                    |cached: &CachedDestination| now.duration_since(cached.resolved_at) <= MAX_AGE;
                return Ok(cached.destinations.into_iter().filter(recent).collect());
            }
            Ok(cached) => format!("its version is {}, not {VERSION}", cached.version),
            Err(error) => error.to_string(),
        };
        let quarantine = Quarantine::plan(path);
        let copied = quarantine.carry_out().and_then(|()| Self::new(vec![]).store(path));
        tracing::warn!(
            path = %path.display(), copy = %quarantine.copy().display(), problem,
            uncopied = copied.err().map(|error| error_chain(&error)),
            "the last known addresses cannot be parsed: starting without them"
        );
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
