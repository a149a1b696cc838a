//! Which version of the agent served before this one, and since when this one does: for whoever
//! asks whether something began with an upgrade.

use std::path::Path;

use redirector_common::abi::ABI;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{atomic_file, control::api::UpgradeInfo};

/// In the state directory.
const FILE: &str = "version.json";

/// A version of the agent, with that of its tables in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Version {
    /// Nothing for one that did not note itself yet, and was found by its tables.
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
struct Record {
    #[serde(flatten)]
    now: Version,
    /// When its first start was over.
    since: jiff::Timestamp,
    /// What served before; nothing before the first upgrade (or downgrade).
    before: Option<Version>,
}

/// Notes that this version serves; `taken_over` is the version of the older tables that its
/// datapath was made from. That it can't be noted is no reason not to serve.
pub(crate) fn note(state_dir: &Path, now: jiff::Timestamp, taken_over: Option<u32>) {
    let before = read(state_dir)
        .map(|record| record.now)
        .or(taken_over.map(|abi| Version { version: None, abi }));
    if before == Some(Version::own()) {
        return;
    }
    let record = Record { now: Version::own(), since: now, before };
    let bytes = serde_json::to_vec_pretty(&record).unwrap_or_default();
    if let Err(error) = atomic_file::write_atomically(&state_dir.join(FILE), &bytes) {
        warn!("failed to note which version serves: {}", crate::error::error_chain(&error));
    }
}

/// The last change of versions, if there was one.
pub(crate) fn last_upgrade(state_dir: &Path) -> Option<UpgradeInfo> {
    let Record { now, since, before } = read(state_dir)?;
    let before = before?;
    Some(UpgradeInfo {
        at: since,
        from_version: before.version,
        from_abi: before.abi,
        to_version: now.version.unwrap_or_default(),
        to_abi: now.abi,
    })
}

/// A file that makes no sense is as good as none: it only tells.
fn read(state_dir: &Path) -> Option<Record> {
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
    fn an_upgrade_is_told_with_the_version_before_and_when_it_was() {
        let folder = tempfile::tempdir().expect("a directory");
        note(folder.path(), at(10), None);
        assert_eq!(last_upgrade(folder.path()), None, "the first version ever");
        let older =
            r#"{"version": "0.0.9", "abi": 1, "since": "1970-01-01T00:00:05Z", "before": null}"#;
        std::fs::write(folder.path().join(FILE), older).expect("written");
        note(folder.path(), at(20), None);
        // A restart is no upgrade.
        note(folder.path(), at(30), None);
        let told = last_upgrade(folder.path()).expect("an upgrade");
        assert_eq!(
            (told.from_version.as_deref(), told.from_abi, told.to_abi, told.at),
            (Some("0.0.9"), 1, ABI, at(20))
        );
    }

    #[test]
    fn a_version_that_has_noted_nothing_is_known_by_its_tables() {
        let folder = tempfile::tempdir().expect("a directory");
        note(folder.path(), at(10), Some(2));
        let told = last_upgrade(folder.path()).expect("an upgrade");
        assert_eq!((told.from_version, told.from_abi), (None, 2));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_replaced() {
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::write(folder.path().join(FILE), "{").expect("written");
        note(folder.path(), at(10), None);
        assert_eq!(read(folder.path()).map(|record| record.since), Some(at(10)));
    }
}
