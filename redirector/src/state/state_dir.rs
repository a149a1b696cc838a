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
    atomic_file::FileError,
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
    /// Whether the files have to be written before the journal takes a change.
    needs_compaction: bool,
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
    /// Reads `folder`. Nothing is written before the first [commit](State::commit) or
    /// [compaction](State::compact), which copies a damaged file before it rewrites it: what can
    /// still be read of it is kept, and the warnings describe the rest.
    ///
    /// # Errors
    /// When a file is a newer version's, or can't be read.
    pub fn open(folder: &Path, pool: &Pool) -> Result<OpenedState, StateError> {
        let OpenedStore { store, mut routes, warning } = Store::open(folder.join("routes.json"))?;
        let (journal, JournalContents { entries, damage, .. }) =
            Journal::open(folder.join("journal"))?;
        let mut warnings: Vec<String> = warning.into_iter().collect();
        let mut needs_compaction = !entries.is_empty() || damage.is_some() || !warnings.is_empty();
        if let Some(damage) = damage {
            warnings.push(journal.warning(&damage, entries.len()));
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
        needs_compaction |= !leases.warnings().is_empty();
        let last = journal.records().last().map_or(0, |record| record.number);
        let last = history.last().max(last);
        let state = Self { last, store, journal, history, needs_compaction };
        Ok(OpenedState { state, leases, routes, warnings })
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
        if self.journal.needs_reset() || self.needs_compaction {
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

    /// Whether the journal should be [compacted](State::compact): it has grown enough, or the files
    /// have to be written.
    pub fn needs_compaction(&self) -> bool {
        self.needs_compaction || self.journal.needs_reset() || self.journal.is_oversized()
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
        self.journal.reset(files)?;
        self.needs_compaction = false;
        Ok(())
    }

    /// Notices that the files were removed: the next commit or compaction writes all of them.
    /// Returns whether they were.
    pub fn notice_loss(&mut self) -> bool {
        let is_lost = self.journal.is_lost();
        if is_lost {
            self.journal.close();
        }
        is_lost
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
