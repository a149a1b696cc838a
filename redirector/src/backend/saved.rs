//! The last known addresses on disk, so that a restart while DNS is down begins with them.

use std::{
    fs, io,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Addresses older than this are not used again: they may belong to somebody else by now.
const OLDEST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The form of the file.
const VERSION: u32 = 1;

/// Why the follower can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The state file is there and can't be read.
    #[error("failed to read the last known addresses from {path}: make it readable for the agent, or remove it")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
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

    /// What an earlier run left; nothing when there is no file, or none that can be understood, which is logged and no reason to stop.
    pub(super) fn load(path: &Path, now: Timestamp) -> Result<Vec<SavedDestination>, BackendError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(source) => return Err(BackendError::Read { path: path.into(), source }),
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(saved) if saved.version == VERSION => {
                let recent = |saved: &SavedDestination| now.duration_since(saved.resolved_at) <= OLDEST;
                Ok(saved.destinations.into_iter().filter(recent).collect())
            }
            Ok(saved) => {
                tracing::warn!(path = %path.display(), version = saved.version, "ignoring last known addresses of an unknown version");
                Ok(vec![])
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "ignoring last known addresses that can't be read");
                Ok(vec![])
            }
        }
    }

    /// Replaces the file: the old one or the new one is there at any time, whatever happens to the power.
    pub(super) fn store(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        fs::File::open(directory)?.sync_all()
    }
}
