//! One change of the stored routes: who made it, when, and what each route was before and is after.

use serde::{Deserialize, Serialize};

use crate::route::{
    Edit, RouteChange, RouteDiff, RouteOnDisk, RouteProblems, RouteSet, SourceName, StoredRoute,
    StoredRoutes,
};

/// The version of a record's shape.
/// In version 1, `*.zone` meant what `**.zone` means now.
const VERSION: u32 = 2;

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
    #[serde(alias = "did")]
    pub action: String,
    /// The change that it took back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<u64>,
    changes: Vec<RouteDifference>,
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
struct RouteDifference {
    source: SourceName,
    before: Option<RouteOnDisk>,
    after: Option<RouteOnDisk>,
}

/// Why a change can't be undone; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// There is none.
    #[error("there is no change to undo: routes of the configuration file are changed there")]
    Nothing,
    /// What it made is not there any more.
    #[error(
        "change {number} can't be undone: the route of `{source_name}` has changed since; \
            `redirector route history` shows all"
    )]
    Differs {
        /// The change.
        number: u64,
        /// The source.
        source_name: SourceName,
    },
    /// What was before does not fit the present configuration.
    #[error("change {number} can't be undone: {problems}")]
    Invalid {
        /// The change.
        number: u64,
        /// What does not fit.
        problems: RouteProblems,
    },
}

/// What a change is recorded with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// Who makes it.
    pub by: Author,
    /// What is done: `added`, `changed`, `removed`, `restored`, `imported` or `rolled_back`.
    pub action: &'a str,
    /// The change that is taken back.
    pub undoes: Option<u64>,
}

impl Record {
    /// What `edits` do, or nothing.
    pub(super) fn new(number: u64, change: &Change<'_>, edits: &[Edit]) -> Option<Self> {
        let on_disk = |route: &Option<StoredRoute>| route.as_ref().map(RouteOnDisk::from);
        let one = |edit: &Edit| RouteDifference {
            source: edit.source.clone(),
            before: on_disk(&edit.before),
            after: on_disk(&edit.after),
        };
        let changes: Vec<_> = edits.iter().map(one).collect();
        let Change { by, action, undoes } = *change;
        let record = Self {
            version: VERSION,
            number,
            at: jiff::Timestamp::now(),
            by,
            action: action.to_owned(),
            undoes,
            changes,
        };
        (!record.changes.is_empty()).then_some(record)
    }

    /// In the words of this version.
    pub(super) fn upgraded(mut self) -> Self {
        if self.version < 2 {
            self.version = VERSION;
            for change in &mut self.changes {
                change.source = change.source.clone().with_deep_wildcard();
                change.before = change.before.take().map(RouteOnDisk::with_deep_wildcard);
                change.after = change.after.take().map(RouteOnDisk::with_deep_wildcard);
            }
        }
        self
    }

    /// Whether this binary understands it.
    pub(super) fn is_supported(&self) -> bool {
        self.version <= VERSION
    }

    /// Applies the change to `stored`, whatever it was before. Invalid routes are left out and
    /// reported.
    pub(super) fn redo(self, stored: &mut StoredRoutes) -> Result<(), RouteProblems> {
        let mut result = Ok(());
        for change in self.changes {
            match change.after.map(StoredRoute::try_from) {
                Some(Ok(route)) => drop(stored.insert(change.source, route)),
                Some(Err(problems)) => result = Err(problems),
                None => drop(stored.remove(&change.source)),
            }
        }
        result
    }

    /// The sources that it concerns.
    pub fn sources(&self) -> Vec<SourceName> {
        self.changes.iter().map(|change| change.source.clone()).collect()
    }

    /// What it did to the stored routes. An override of a file's route is an addition.
    pub fn diff(&self) -> RouteDiff {
        let mut diff = RouteDiff::default();
        for change in &self.changes {
            match (
                change.before.as_ref().map(RouteOnDisk::route),
                change.after.as_ref().map(RouteOnDisk::route),
            ) {
                (None, Some(new)) => diff.added.push(new.clone()),
                (Some(old), None) => diff.removed.push(old.clone()),
                (Some(old), Some(new)) => {
                    diff.changed.push(RouteChange { old: old.clone(), new: new.clone() })
                }
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
                    let before = StoredRoute::try_from(before.clone())
                        .map_err(|problems| UndoError::Invalid { number, problems })?;
                    drop(stored.insert(source.clone(), before));
                }
            }
        }
        routes.restore(stored).map_err(|problems| UndoError::Invalid { number, problems })
    }
}

fn on_disk(stored: &StoredRoutes, source: &SourceName) -> Option<RouteOnDisk> {
    stored.get(source).map(RouteOnDisk::from)
}
