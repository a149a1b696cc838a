//! The changes before those of the journal: a file for each compaction, named by the
//! number of its last record.
//!
//! Earlier versions wrote a file for each record, as JSON without a checksum; those are read too.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    journal::{self, JournalEntry},
    record::Record,
};
use crate::atomic_file::{self, FileError};

/// How many changes are kept.
pub(super) const KEPT: usize = 100;

/// The files in `state_dir/history`.
#[derive(Debug)]
pub(super) struct History {
    folder: PathBuf,
    /// By the number of the last record of each.
    files: BTreeMap<u64, PathBuf>,
}

impl History {
    /// Lists `folder`; empty if there is none.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub(super) fn open(folder: PathBuf) -> Result<Self, FileError> {
        let listed = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.and_then(|entries| entries.collect::<io::Result<Vec<_>>>()),
        };
        let entries =
            listed.map_err(|source| FileError { action: "read", path: folder.clone(), source })?;
        let files = entries
            .into_iter()
            .map(|entry| entry.path())
            .filter_map(|path| Some((number_of(&path)?, path)))
            .collect();
        Ok(Self { folder, files })
    }

    /// The number of the last record; 0 when there is none.
    pub(super) fn last(&self) -> u64 {
        self.files.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// Keeps the records of a journal, and drops what is older than the last [`KEPT`].
    ///
    /// # Errors
    /// When the file can't be written, or an old one can't be removed.
    pub(super) fn add(&mut self, records: Vec<Record>) -> Result<(), FileError> {
        let Some(last) = records.last().map(|record| record.number) else { return Ok(()) };
        let path = self.folder.join(format!("{last:010}.log"));
        let first = records.len().saturating_sub(KEPT);
        let lines: Vec<u8> = records
            .into_iter()
            .skip(first)
            .flat_map(|record| JournalEntry::new((&[]).into(), Some(record)).line())
            .collect();
        atomic_file::write_atomically(&path, &lines)?;
        self.files.insert(last, path);
        let kept = self.files.split_off(&(last + 1).saturating_sub(KEPT as u64));
        for (number, path) in std::mem::replace(&mut self.files, kept) {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    self.files.insert(number, path.clone());
                    return Err(FileError { action: "remove", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Every record that can be read, in the order of their numbers.
    pub(super) fn records(&self) -> Vec<Record> {
        self.files.values().flat_map(|path| records(path)).collect()
    }
}

fn records(path: &Path) -> Vec<Record> {
    let read = || -> Result<Vec<Record>, String> {
        if path.extension().is_some_and(|extension| extension == "log") {
            let found = journal::read(path).map_err(|error| error.to_string())?;
            if let Some(damage) = found.damage {
                tracing::warn!(path = %path.display(), damage, "some records of changes can't be \
                    read");
            }
            return Ok(found.entries.into_iter().filter_map(|entry| entry.record).collect());
        }
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        Ok(vec![serde_json::from_slice(&bytes).map_err(|error| error.to_string())?])
    };
    let mut records = read().unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), error, "a record of changes can't be read");
        Vec::new()
    });
    records.retain(Record::is_supported);
    records.into_iter().map(Record::upgraded).collect()
}

fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".log").or_else(|| name.strip_suffix(".json"))?.parse().ok()
}
