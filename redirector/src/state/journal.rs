//! The journal: a line for each change, with its checksum, in a preallocated file, so that a line
//! costs one write and one sync of data, not of the file's size.
//!
//! A line that was cut off by a kill or a power cut belongs to a change that was never reported as
//! done, and is skipped. Any other line that can't be read is damage.

use std::{
    borrow::Cow,
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{lease_change::LeaseChange, record::Record};
use crate::atomic_file::{self, FileError, Quarantine};

/// The version of a line's shape.
/// In version 1, `*.zone` meant what `**.zone` means now.
pub(super) const VERSION: u32 = 2;
/// The preallocated length, enough for some hundred changes. A journal that needs more grows.
const PREALLOCATED: u64 = 256 << 10;

/// One change.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JournalEntry<'a> {
    version: u32,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub(super) leases: Cow<'a, [LeaseChange]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) record: Option<Record>,
}

impl<'a> JournalEntry<'a> {
    pub(super) fn new(leases: Cow<'a, [LeaseChange]>, record: Option<Record>) -> Self {
        Self { version: VERSION, leases, record }
    }

    /// The line of this: the checksum of the rest, a space, and JSON.
    pub(super) fn line(&self) -> Vec<u8> {
        let text = serde_json::to_vec(self).expect("texts and numbers are JSON");
        let mut line = format!("{:08x} ", crc32fast::hash(&text)).into_bytes();
        line.extend(text);
        line.push(b'\n');
        line
    }

    fn read(line: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged = |reason: &str| Unreadable::Damaged(reason.to_owned());
        let (sum, text) = line.split_at_checked(9).ok_or_else(|| damaged("it is too short"))?;
        if sum != format!("{:08x} ", crc32fast::hash(text)).as_bytes() {
            return Err(damaged("checksum mismatch"));
        }
        match serde_json::from_slice::<Versioned>(text) {
            Ok(Versioned { version }) if version > VERSION => Err(Unreadable::Newer(version)),
            _ => serde_json::from_slice(text)
                .map(Self::upgraded)
                .map_err(|error| Unreadable::Damaged(error.to_string())),
        }
    }

    /// In the words of this version.
    fn upgraded(self) -> Self {
        if self.version >= 2 {
            return self;
        }
        let leases = self.leases.into_owned().into_iter().map(LeaseChange::with_deep_wildcard);
        Self {
            version: VERSION,
            leases: leases.collect::<Vec<_>>().into(),
            record: self.record.map(Record::upgraded),
        }
    }
}

/// Why a journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It is from a newer redirector.
    #[error(
        "{} has version {found}, this binary reads {VERSION}: run the newer redirector",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why a line is no entry.
enum Unreadable {
    Newer(u32),
    Damaged(String),
}

/// What a journal holds.
#[derive(Debug, Default)]
pub(super) struct JournalContents {
    pub(super) entries: Vec<JournalEntry<'static>>,
    /// What is wrong with it.
    pub(super) damage: Option<String>,
    /// Whether it is there, and nothing was ever written to it.
    blank: bool,
}

/// Reads a journal, or nothing where there is none.
pub(super) fn read(path: &Path) -> Result<JournalContents, JournalError> {
    let Some(bytes) = atomic_file::read_if_present(path)? else {
        return Ok(JournalContents::default());
    };
    let newer = |found| JournalError::Newer { path: path.to_owned(), found };
    let mut found = JournalContents { blank: true, ..JournalContents::default() };
    let mut cut_off = None;
    for (number, line) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        if line.iter().all(|byte| *byte == 0) {
            continue;
        }
        found.blank = false;
        // A text has no NUL, so these are from before the line was written.
        let whole = line.ends_with(b"\n") && !line.contains(&0);
        match JournalEntry::read(line.strip_suffix(b"\n").unwrap_or(line)) {
            Ok(entry) => {
                // Only the last change can be cut off: this one was begun when that was on disk.
                found.damage = found.damage.or(cut_off.take());
                found.entries.push(entry);
            }
            Err(Unreadable::Newer(version)) => return Err(newer(version)),
            Err(Unreadable::Damaged(reason)) => {
                let reason = format!("line {number}: {reason}");
                if whole {
                    found.damage = found.damage.or(Some(reason))
                } else {
                    cut_off = cut_off.or(Some(reason))
                }
            }
        }
    }
    if let Some(reason) = cut_off {
        tracing::warn!(path = %path.display(), reason, "the change that was under way when the \
            agent was killed was not made");
    }
    Ok(found)
}

/// The file, for what comes.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// `None` until it is reset.
    file: Option<File>,
    /// How much of it is written.
    end: u64,
    /// From which length on it is long.
    long: u64,
    /// What [`Journal::reset`] copies first.
    damaged: Option<Quarantine>,
}

impl Journal {
    /// Reads the journal at `path`. It takes no line before it is [reset](Journal::reset), unless
    /// it is there and empty.
    pub(super) fn open(path: PathBuf) -> Result<(Self, JournalContents), JournalError> {
        let found = read(&path)?;
        let file = if found.blank { Some(opened(&path)?) } else { None };
        let damaged = found.damage.as_ref().map(|_| Quarantine::plan(&path));
        Ok((Self { path, file, end: 0, long: PREALLOCATED, damaged }, found))
    }

    /// Whether it has to be reset before it takes a line.
    pub(super) fn needs_reset(&self) -> bool {
        self.file.is_none()
    }

    /// Whether the file was removed or replaced: what is written to it is lost then.
    pub(super) fn is_lost(&self) -> bool {
        self.file.as_ref().is_some_and(|file| atomic_file::is_lost(&self.path, file))
    }

    /// Takes no line before it is reset.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// Whether it is time to reset it: it has outgrown its room, and the files that are written for
    /// that.
    pub(super) fn is_oversized(&self) -> bool {
        self.end > self.long
    }

    /// Writes a line. It is on disk when this returns.
    ///
    /// # Errors
    /// When it is not. Then the journal has to be reset, since nobody knows what the disk has of
    /// the line.
    pub(super) fn append(&mut self, entry: &JournalEntry<'_>) -> Result<(), FileError> {
        let line = entry.line();
        let failed = |action, source| FileError { action, path: self.path.clone(), source };
        let file = self.file.as_ref().ok_or_else(|| {
            failed("write", std::io::Error::other("the journal has not been reset"))
        })?;
        let written = file.write_all_at(&line, self.end).map_err(|error| failed("write", error));
        if let Err(error) =
            written.and_then(|()| file.sync_data().map_err(|error| failed("sync", error)))
        {
            // If the agent dies before it resets the journal, no reader must find the refused line.
            let _ = file.set_len(self.end);
            self.file = None;
            return Err(error);
        }
        self.end += line.len() as u64;
        Ok(())
    }

    /// Replaces the journal by an empty one. `files` is the size of the files that compaction
    /// wrote.
    pub(super) fn reset(&mut self, files: u64) -> Result<(), FileError> {
        Quarantine::settle(&mut self.damaged)?;
        atomic_file::write_atomically(&self.path, &vec![0; PREALLOCATED as usize])?;
        self.file = Some(opened(&self.path)?);
        self.end = 0;
        self.long = PREALLOCATED.max(files);
        Ok(())
    }

    /// From here on it can't be written, until it is reset.
    #[cfg(test)]
    pub(super) fn make_unwritable(&mut self) {
        self.file = Some(File::open(&self.path).expect("opened for reading"));
    }

    /// The records of its changes, as far as they can be read.
    pub(super) fn records(&self) -> Vec<Record> {
        match read(&self.path) {
            Ok(found) => found.entries.into_iter().filter_map(|entry| entry.record).collect(),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "changes since the last compaction can't be read"
                );
                Vec::new()
            }
        }
    }

    /// Describes its damage: `kept` of its changes were read.
    pub(super) fn warning(&self, damage: &str, kept: usize) -> String {
        let copy = self.damaged.as_ref().map_or(self.path.as_path(), Quarantine::copy);
        let warning = format!(
            "{} was damaged ({damage}) and is now {}: {kept} of its changes were kept; `redirector \
                route list` shows what there is",
            self.path.display(),
            copy.display()
        );
        tracing::warn!("{warning}");
        warning
    }
}

fn opened(path: &Path) -> Result<File, FileError> {
    let file = OpenOptions::new().write(true).open(path);
    file.map_err(|source| FileError { action: "open", path: path.to_owned(), source })
}
