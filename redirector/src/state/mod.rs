//! What the agent keeps on disk: routes, leases, and who changed what.
//!
//! | in the state directory | is |
//! |---|---|
//! | `routes.json`, `leases.json` | the routes of the command line and of imports, and every lease, as of the last folding |
//! | `journal` | each change since then, a line each |
//! | `history/` | who changed what, before that |
//!
//! A change is one line at the end of the journal and one sync: leases, routes and record become
//! true together. Whatever reads the directory reads the two files and goes on from there by the
//! journal. Now and then, and at each start, the journal is folded into the files; a power cut or a
//! kill between them does no harm, since what a line says is what holds afterwards, however often
//! it is carried out.

mod history;
mod journal;
mod leases;
mod record;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

pub use self::leases::{LeaseChange, LeaseError, LeaseWarning, Leases};
pub use self::record::{Author, Change, Record, UndoError};
use self::{
    history::{History, KEPT},
    journal::{Journal, JournalContents, JournalEntry},
};
use crate::{
    atomic_file::{self, FileError},
    pool::Pool,
    route::{Edit, SourceName, Store, StoreError, StoredRoute},
};

/// The routes that are stored, by their sources.
pub type Stored = BTreeMap<SourceName, StoredRoute>;

/// What is kept beside the leases and the routes themselves, which whoever changes them has.
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
pub struct Opened {
    /// For what comes.
    pub state: State,
    /// The leases.
    pub leases: Leases,
    /// The routes.
    pub routes: Stored,
    /// What an operator should know about the files: damage, and where the damaged file is now. It
    /// is also logged.
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
    /// The journal is from a newer redirector.
    #[error("{} has version {found}, this binary reads {}: run the newer redirector", path.display(), journal::VERSION)]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A file can't be read or written.
    #[error(transparent)]
    Durable(#[from] FileError),
}

impl State {
    /// Reads what is in `folder`, which is made when it is missing. A damaged file is set aside,
    /// never emptied: what can still be read of it is kept, and the rest is told.
    ///
    /// # Errors
    /// When a file is a newer version's, or can't be read, set aside or written.
    pub fn open(folder: &Path, pool: &Pool) -> Result<Opened, StateError> {
        atomic_file::make_directory(folder, 0o750)?;
        let crate::route::Opened { store, mut routes, warning } =
            Store::open(folder.join("routes.json"))?;
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
        let mut opened = Opened { state, leases, routes, warnings };
        if dirty {
            opened.state.compact(&opened.routes, &mut opened.leases)?;
        }
        Ok(opened)
    }

    /// Makes `edits` of the routes that are stored `before`, and what is [unkept](Leases::pending)
    /// of the leases, true: on disk when this returns. Tells whether there was anything to record;
    /// what only the leases have is kept when it has to be.
    ///
    /// # Errors
    /// When it can't be written: nothing is changed then, and `leases` has as much to keep as
    /// before.
    pub fn commit(
        &mut self,
        change: &Change<'_>,
        edits: &[Edit],
        before: &Stored,
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

    /// Whether the journal has grown enough to be [folded](State::compact).
    pub fn needs_compaction(&self) -> bool {
        self.journal.is_oversized()
    }

    /// Writes `routes` and `leases` into their files, which makes the journal empty.
    ///
    /// # Errors
    /// When a file can't be written. What is true stays so.
    pub fn compact(&mut self, routes: &Stored, leases: &mut Leases) -> Result<(), FileError> {
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

    /// The last change that was not taken back and takes nothing back itself.
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

/// Which source has the VIP of which index, as far as that can be read in `folder`; nothing is
/// written. For whoever looks without the agent.
pub fn leased(folder: &Path) -> BTreeMap<u32, SourceName> {
    let mut leased = leases::leased(&folder.join("leases.json"));
    for change in journal::read(&folder.join("journal"))
        .into_iter()
        .flat_map(|found| found.entries)
        .flat_map(|entry| entry.leases.into_owned())
    {
        match change {
            LeaseChange::Leased(source, index) => drop(leased.insert(index, source)),
            LeaseChange::Freed(_, index) => drop(leased.remove(&index)),
        }
    }
    leased
}
