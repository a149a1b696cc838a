//! Records which version of the agent serves and which served before, so that `status` can show
//! the last upgrade.

use std::path::Path;

use redirector_common::abi::ABI;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{atomic_file, control::api::UpgradeInfo, error::error_chain};

/// In the state directory.
const FILE: &str = "version.json";

/// A version of the agent, and the ABI of its tables in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Version {
    /// None for a version that did not record itself, and was recognized by its tables.
    version: Option<String>,
    abi: u32,
}

impl Version {
    fn own() -> Self {
        Self { version: Some(env!("CARGO_PKG_VERSION").to_owned()), abi: ABI }
    }
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct VersionRecord {
    #[serde(flatten)]
    now: Version,
    /// When its first startup was complete.
    since: jiff::Timestamp,
    /// The version before; none before the first upgrade (or downgrade).
    before: Option<Version>,
}

/// Records that this version serves. `upgraded_from` is the ABI of the tables that its datapath was
/// upgraded from. A failure is only logged.
pub(crate) fn record(state_dir: &Path, now: jiff::Timestamp, upgraded_from: Option<u32>) {
    let before = read(state_dir)
        .map(|record| record.now)
        .or(upgraded_from.map(|abi| Version { version: None, abi }));
    if before == Some(Version::own()) {
        return;
    }
    let record = VersionRecord { now: Version::own(), since: now, before };
    let bytes = serde_json::to_vec_pretty(&record).unwrap_or_default();
    if let Err(error) = atomic_file::write_atomically(&state_dir.join(FILE), &bytes) {
        warn!("failed to record the version that serves: {}", error_chain(&error));
    }
}

/// The last upgrade, if there was one.
pub(crate) fn last_upgrade(state_dir: &Path) -> Option<UpgradeInfo> {
    let VersionRecord { now, since, before } = read(state_dir)?;
    let before = before?;
    Some(UpgradeInfo {
        at: since,
        from_version: before.version,
        from_abi: before.abi,
        to_version: now.version.unwrap_or_default(),
        to_abi: now.abi,
    })
}

/// An invalid file is treated as absent: nothing depends on it.
fn read(state_dir: &Path) -> Option<VersionRecord> {
    let bytes = atomic_file::read_if_present(&state_dir.join(FILE)).ok().flatten()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn an_upgrade_is_recorded_with_the_version_before_it() {
        let folder = tempfile::tempdir().expect("a directory");
        record(folder.path(), at(10), None);
        assert_eq!(last_upgrade(folder.path()), None, "the first version ever");
        let older =
            r#"{"version": "0.0.9", "abi": 1, "since": "1970-01-01T00:00:05Z", "before": null}"#;
        std::fs::write(folder.path().join(FILE), older).expect("written");
        record(folder.path(), at(20), None);
        // A restart is no upgrade.
        record(folder.path(), at(30), None);
        let upgrade = last_upgrade(folder.path()).expect("an upgrade");
        assert_eq!(
            (upgrade.from_version.as_deref(), upgrade.from_abi, upgrade.to_abi, upgrade.at),
            (Some("0.0.9"), 1, ABI, at(20))
        );
    }

    #[test]
    fn an_unrecorded_version_is_recognized_by_its_tables() {
        let folder = tempfile::tempdir().expect("a directory");
        record(folder.path(), at(10), Some(2));
        let upgrade = last_upgrade(folder.path()).expect("an upgrade");
        assert_eq!((upgrade.from_version, upgrade.from_abi), (None, 2));
    }

    #[test]
    fn an_invalid_record_is_replaced() {
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::write(folder.path().join(FILE), "{").expect("written");
        record(folder.path(), at(10), None);
        assert_eq!(read(folder.path()).map(|record| record.since), Some(at(10)));
    }
}
