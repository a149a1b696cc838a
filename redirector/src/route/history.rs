//! What was changed, by whom and when: one file for each of the last [`KEPT`] changes of the stored routes, with what they were before.
//!
//! A record is written before the routes are, so that no change goes unrecorded; one whose change never came about is dropped at the next start.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{RouteChange, RouteDiff, RouteProblems, RouteSet, SourceName, StoredRoute, store::RouteOnDisk};
use crate::durable::{self, DurableError};

/// How many changes are kept.
pub(super) const KEPT: usize = 100;
/// The version of a record's shape.
const VERSION: u32 = 1;

/// The records in `state_dir/history`.
#[derive(Debug)]
pub struct History {
    folder: PathBuf,
    numbers: BTreeSet<u64>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// Its number; they grow by one.
    pub number: u64,
    /// When.
    pub at: jiff::Timestamp,
    /// Who.
    pub by: Author,
    /// What was done: `added`, `changed`, `removed`, `restored`, `imported` or `rolled_back`.
    pub did: String,
    /// The change that it took back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<u64>,
    changes: Vec<Change>,
}

/// Who made a change, by the socket's credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process, when it was visible to the agent.
    pub pid: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    source: SourceName,
    before: Option<RouteOnDisk>,
    after: Option<RouteOnDisk>,
}

/// Why a change can't be taken back; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// There is none.
    #[error("there is no change to take back: routes of the configuration file are changed there")]
    Nothing,
    /// What it made is not there any more.
    #[error(
        "change {number} can't be taken back: the route of `{source_name}` is not what it made any more; `redirector route history` shows all"
    )]
    Differs {
        /// The change.
        number: u64,
        /// The source.
        source_name: SourceName,
    },
    /// What was before does not fit the present configuration.
    #[error("change {number} can't be taken back: {problems}")]
    Invalid {
        /// The change.
        number: u64,
        /// What does not fit.
        problems: RouteProblems,
    },
}

type Stored = BTreeMap<SourceName, StoredRoute>;

impl History {
    /// Opens the records in `folder`, for routes that are `stored` now.
    ///
    /// # Errors
    /// When the folder can't be read, or a record that never came about can't be removed.
    pub fn open(folder: PathBuf, stored: &Stored) -> Result<Self, DurableError> {
        let numbers = match fs::read_dir(&folder) {
            Ok(entries) => entries.flatten().filter_map(|entry| number_of(&entry.file_name().to_string_lossy())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(source) => return Err(DurableError { action: "read", path: folder, source }),
        };
        let mut history = Self { folder, numbers };
        if let Some(last) = history.numbers.last().copied().and_then(|number| history.read(number))
            && last.changes.iter().all(|change| change.before == on_disk(stored, &change.source))
            && !last.changes.iter().all(|change| change.before == change.after)
        {
            history.forget(last.number)?;
        }
        Ok(history)
    }

    /// Records what differs between two states of the store; none when nothing does.
    ///
    /// # Errors
    /// When the record can't be written.
    pub fn record(
        &mut self,
        by: Author,
        did: &str,
        undoes: Option<u64>,
        before: &Stored,
        after: &Stored,
    ) -> Result<Option<u64>, DurableError> {
        let sources: BTreeSet<&SourceName> =
            before.keys().chain(after.keys()).filter(|source| before.get(*source) != after.get(*source)).collect();
        if sources.is_empty() {
            return Ok(None);
        }
        let change =
            |source: &SourceName| Change { source: source.clone(), before: on_disk(before, source), after: on_disk(after, source) };
        let number = self.numbers.last().map_or(1, |last| last + 1);
        let changes = sources.into_iter().map(change).collect();
        let record = Record { version: VERSION, number, at: jiff::Timestamp::now(), by, did: did.to_owned(), undoes, changes };
        let text = serde_json::to_string_pretty(&record).expect("texts are JSON") + "\n";
        durable::write_atomically(&self.path(number), text.as_bytes())?;
        self.numbers.insert(number);
        while self.numbers.len() > KEPT {
            let oldest = *self.numbers.first().expect("there are many");
            self.forget(oldest)?;
        }
        Ok(Some(number))
    }

    /// Drops a record.
    ///
    /// # Errors
    /// When its file can't be removed.
    pub fn forget(&mut self, number: u64) -> Result<(), DurableError> {
        self.numbers.remove(&number);
        let path = self.path(number);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DurableError { action: "remove", path, source }),
            _ => Ok(()),
        }
    }

    /// Every record that can be read, the last one first.
    pub fn records(&self) -> Vec<Record> {
        self.numbers.iter().rev().filter_map(|&number| self.read(number)).collect()
    }

    /// The last change that was not taken back and takes nothing back itself.
    ///
    /// # Errors
    /// When there is none.
    pub fn last(&self) -> Result<Record, UndoError> {
        let mut undone = BTreeSet::new();
        for record in self.numbers.iter().rev().filter_map(|&number| self.read(number)) {
            match record.undoes {
                Some(number) => drop(undone.insert(number)),
                None if undone.contains(&record.number) => {}
                None => return Ok(record),
            }
        }
        Err(UndoError::Nothing)
    }

    fn read(&self, number: u64) -> Option<Record> {
        let bytes = fs::read(self.path(number)).ok()?;
        let record = serde_json::from_slice::<Record>(&bytes).ok().filter(|record| record.version <= VERSION && record.number == number);
        if record.is_none() {
            tracing::warn!(path = %self.path(number).display(), "a record of a change can't be read");
        }
        record
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:010}.json"))
    }
}

impl Record {
    /// The sources that it concerns.
    pub fn sources(&self) -> Vec<SourceName> {
        self.changes.iter().map(|change| change.source.clone()).collect()
    }

    /// What it did to the stored routes. An override of a file's route is an addition.
    pub fn diff(&self) -> RouteDiff {
        let mut diff = RouteDiff::default();
        for change in &self.changes {
            match (change.before.as_ref().map(RouteOnDisk::route), change.after.as_ref().map(RouteOnDisk::route)) {
                (None, Some(new)) => diff.added.push(new.clone()),
                (Some(old), None) => diff.removed.push(old.clone()),
                (Some(old), Some(new)) => diff.changed.push(RouteChange { old: old.clone(), new: new.clone() }),
                (None, None) => {}
            }
        }
        diff
    }

    /// Takes the change back in `routes`, and says what that changes of what serves.
    ///
    /// # Errors
    /// When what it made is not there any more, or what was before does not fit.
    pub fn undo(&self, routes: &mut RouteSet) -> Result<RouteDiff, UndoError> {
        let number = self.number;
        let mut stored = routes.stored().clone();
        for change in &self.changes {
            let source = &change.source;
            if on_disk(&stored, source) != change.after {
                return Err(UndoError::Differs { number, source_name: source.clone() });
            }
            match &change.before {
                None => drop(stored.remove(source)),
                Some(before) => {
                    let before = StoredRoute::try_from(before.clone()).map_err(|problems| UndoError::Invalid { number, problems })?;
                    drop(stored.insert(source.clone(), before));
                }
            }
        }
        routes.restore(stored).map_err(|problems| UndoError::Invalid { number, problems })
    }
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".json")?.parse().ok()
}

fn on_disk(stored: &Stored, source: &SourceName) -> Option<RouteOnDisk> {
    stored.get(source).map(RouteOnDisk::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        route::{Hand, Route},
        vip::Pool,
    };

    struct Rig {
        directory: tempfile::TempDir,
        routes: RouteSet,
        history: History,
    }

    fn route(source: &str, destination: &str) -> Route {
        serde_json::from_value::<crate::route::RawRoute>(serde_json::json!({"source": source, "destination": destination}))
            .expect("a route")
            .try_into()
            .expect("a good one")
    }

    impl Rig {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let pool = Pool::new("198.18.0.0/16".parse().expect("a net"), None, false).expect("a pool");
            let routes = RouteSet::new("f.toml".into(), pool, vec![route("file.a", "lb.file")], BTreeMap::new());
            let history = History::open(directory.path().join("history"), routes.stored()).expect("opened");
            Self { directory, routes, history }
        }

        fn change(&mut self, did: &str, change: impl FnOnce(&mut RouteSet)) {
            let before = self.routes.clone();
            change(&mut self.routes);
            self.history.record(Author::default(), did, None, before.stored(), self.routes.stored()).expect("recorded");
        }

        /// As the agent does it.
        fn rollback(&mut self) -> Result<u64, UndoError> {
            let record = self.history.last()?;
            let before = self.routes.clone();
            record.undo(&mut self.routes)?;
            let number = Some(record.number);
            self.history.record(Author::default(), "rolled_back", number, before.stored(), self.routes.stored()).expect("recorded");
            Ok(record.number)
        }

        fn reopened(&self) -> History {
            History::open(self.directory.path().join("history"), self.routes.stored()).expect("opened")
        }
    }

    #[test]
    fn each_rollback_goes_one_change_further_back_until_nothing_is_left() {
        let mut rig = Rig::new();
        let mut states = vec![rig.routes.stored().clone()];
        rig.change("added", |routes| routes.add(route("a.b", "lb1"), Hand::CommandLine).expect("added"));
        states.push(rig.routes.stored().clone());
        rig.change("imported", |routes| drop(routes.import(vec![route("a.b", "lb2"), route("file.a", "lb3")], false).expect("imported")));
        states.push(rig.routes.stored().clone());
        rig.change("removed", |routes| drop(routes.remove(&"a.b".parse().expect("a source")).expect("removed")));
        assert_eq!(rig.rollback().expect("undone"), 3);
        assert_eq!(*rig.routes.stored(), states[2]);
        assert_eq!(rig.rollback().expect("undone"), 2);
        assert_eq!(*rig.routes.stored(), states[1]);
        // A new change is the last one then; the older ones stay reachable behind it.
        rig.change("added", |routes| routes.add(route("c.d", "lb4"), Hand::CommandLine).expect("added"));
        assert_eq!(rig.rollback().expect("undone"), 6);
        assert_eq!(rig.rollback().expect("undone"), 1);
        assert_eq!(*rig.routes.stored(), states[0]);
        assert!(matches!(rig.rollback(), Err(UndoError::Nothing)));
        assert_eq!(rig.reopened().records().len(), 8);
    }

    #[test]
    fn a_record_whose_change_never_came_about_is_dropped_at_the_next_start() {
        let mut rig = Rig::new();
        rig.change("added", |routes| routes.add(route("a.b", "lb1"), Hand::CommandLine).expect("added"));
        let mut next = rig.routes.clone();
        next.add(route("c.d", "lb2"), Hand::CommandLine).expect("added");
        // Killed between the record and the routes.
        rig.history.record(Author::default(), "added", None, rig.routes.stored(), next.stored()).expect("recorded");
        let reopened = rig.reopened();
        assert_eq!(reopened.records().len(), 1);
        assert_eq!(reopened.last().expect("a change").number, 1);
    }

    #[test]
    fn only_the_last_hundred_are_kept_and_damage_hides_one_record_only() {
        let mut rig = Rig::new();
        for n in 0..KEPT + 5 {
            rig.change("added", |routes| routes.add(route(&format!("h{n}.b"), "lb"), Hand::CommandLine).expect("added"));
        }
        let records = rig.history.records();
        assert_eq!((records.len(), records[0].number, records[KEPT - 1].number), (KEPT, 105, 6));
        fs::write(rig.history.path(50), "{").expect("written");
        assert_eq!(rig.reopened().records().len(), KEPT - 1);
    }

    #[test]
    fn what_has_been_changed_otherwise_is_not_taken_back() {
        let mut rig = Rig::new();
        rig.change("added", |routes| routes.add(route("a.b", "lb1"), Hand::CommandLine).expect("added"));
        drop(rig.routes.remove(&"a.b".parse().expect("a source")));
        assert!(matches!(rig.rollback(), Err(UndoError::Differs { number: 1, .. })));
    }
}
