//! The state directory as a whole: opened once, changed by commits, compacted now and then.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    history::{History, KEPT},
    journal::{Journal, JournalContents, JournalEntry, JournalError},
    lease_change::LeaseChange,
    leases::{LeaseError, Leases},
    record::{Change, Record, UndoError},
};
use crate::{
    atomic_file::{self, FileError},
    pool::Pool,
    route::{Edit, OpenedStore, Store, StoreError, StoredRoutes},
};

/// The files of the state directory. The leases and the routes themselves belong to the caller.
#[derive(Debug)]
pub struct State {
    store: Store,
    journal: Journal,
    history: History,
    /// The number of the last record.
    last: u64,
}

/// What was found on disk.
#[derive(Debug)]
pub struct OpenedState {
    /// For what comes.
    pub state: State,
    /// The leases.
    pub leases: Leases,
    /// The routes.
    pub routes: StoredRoutes,
    /// Damage of the files, and where the copy of a damaged file is. It is also logged.
    pub warnings: Vec<String>,
}

/// Why the state can't be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The routes.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The leases.
    #[error(transparent)]
    Leases(#[from] LeaseError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file can't be read or written.
    #[error(transparent)]
    Durable(#[from] FileError),
}

impl State {
    /// Reads `folder`, which is created if missing. A damaged file is copied before it is
    /// rewritten: what can still be read of it is kept, and the warnings describe the rest.
    ///
    /// # Errors
    /// When a file is a newer version's, or can't be read, copied or written.
    pub fn open(folder: &Path, pool: &Pool) -> Result<OpenedState, StateError> {
        atomic_file::make_directory(folder, 0o750)?;
        let OpenedStore { store, mut routes, warning } = Store::open(folder.join("routes.json"))?;
        let (journal, JournalContents { entries, damage, .. }) =
            Journal::open(folder.join("journal"))?;
        let mut warnings: Vec<String> = warning.into_iter().collect();
        let dirty = !entries.is_empty() || damage.is_some() || journal.needs_reset();
        if let Some(damage) = damage {
            warnings.push(journal.quarantine(&damage, entries.len())?);
        }
        let mut since = Vec::new();
        for entry in entries {
            since.extend(entry.leases.into_owned());
            warnings.extend(
                entry
                    .record
                    .and_then(|record| record.redo(&mut routes).err())
                    .map(|problems| problems.to_string()),
            );
        }
        let mut leases = Leases::open(folder.join("leases.json"), pool, since)?;
        leases.intern_names(routes.keys());
        warnings.extend(leases.warnings().iter().map(ToString::to_string));
        let history = History::open(folder.join("history"))?;
        let state = Self { last: history.last(), store, journal, history };
        let mut opened = OpenedState { state, leases, routes, warnings };
        if dirty {
            opened.state.compact(&opened.routes, &mut opened.leases)?;
        }
        Ok(opened)
    }

    /// Writes `edits` of the routes stored `before`, and the [pending](Leases::pending) changes of
    /// the leases, to disk. Returns whether there was anything to record; changes of leases alone
    /// are written only if one was leased.
    ///
    /// # Errors
    /// When it can't be written: nothing is changed then, and `leases` has as much pending as
    /// before.
    pub fn commit(
        &mut self,
        change: &Change<'_>,
        edits: &[Edit],
        before: &StoredRoutes,
        leases: &mut Leases,
    ) -> Result<bool, FileError> {
        if self.journal.needs_reset() {
            self.compact(before, leases)?;
        }
        let record = Record::new(self.last + 1, change, edits);
        let leased =
            leases.pending().iter().any(|change| matches!(change, LeaseChange::Leased(..)));
        let recorded = record.is_some();
        if recorded || leased {
            self.journal.append(&JournalEntry::new(Cow::Borrowed(leases.pending()), record))?;
            leases.mark_saved();
            self.last += u64::from(recorded);
        }
        Ok(recorded)
    }

    /// Whether the journal has grown enough to be [compacted](State::compact).
    pub fn needs_compaction(&self) -> bool {
        self.journal.is_oversized()
    }

    /// Writes `routes` and `leases` to their files and empties the journal.
    ///
    /// # Errors
    /// When a file can't be written. What is true stays so.
    pub fn compact(&mut self, routes: &StoredRoutes, leases: &mut Leases) -> Result<(), FileError> {
        // The journal last: until it is empty, it says what the files may not say yet.
        self.history.add(self.journal.records())?;
        self.last = self.last.max(self.history.last());
        leases.save()?;
        self.store.save(routes)?;
        let files = std::fs::metadata(self.store.path()).map_or(0, |file| file.len());
        self.journal.reset(files)
    }

    /// The last hundred changes, the last one first, as far as they can be read.
    pub fn records(&self) -> Vec<Record> {
        let records = self.history.records().into_iter().chain(self.journal.records());
        let by_number: BTreeMap<u64, Record> =
            records.map(|record| (record.number, record)).collect();
        by_number.into_values().rev().take(KEPT).collect()
    }

    /// The last change that was not undone and undoes nothing itself.
    ///
    /// # Errors
    /// When there is none.
    pub fn last(&self) -> Result<Record, UndoError> {
        let mut undone = BTreeSet::new();
        for record in self.records() {
            match record.undoes {
                Some(number) => drop(undone.insert(number)),
                None if undone.contains(&record.number) => {}
                None => return Ok(record),
            }
        }
        Err(UndoError::Nothing)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
