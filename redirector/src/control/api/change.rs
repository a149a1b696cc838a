//! The shapes of changes: what requests ask for and what they did.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::control::api::version::VERSION;
use crate::{
    control::api::route::RouteView,
    route::{RawRoute, SourceName},
};

/// What a change of one route did: the reply to `POST`, `PATCH` and `DELETE` on routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// [`VERSION`].
    pub version: u32,
    /// What was done.
    pub change: ChangeKind,
    /// The source that was changed.
    pub source: SourceName,
    /// The route that is live now; null after a removal.
    pub route: Option<RouteView>,
    /// What the operator should know although the change was made.
    pub warnings: Vec<String>,
}

/// What was done to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is different.
    Changed,
    /// It was like that already.
    Unchanged,
    /// It is gone.
    Removed,
    /// An override is gone; the file's route serves again.
    Restored,
}

impl ChangeKind {
    /// The word in JSON and in the history.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
            Self::Restored => "restored",
        }
    }
}

/// The body of `POST /v1/import`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// The routes.
    pub routes: Vec<RawRoute>,
    /// Whether they are to be the whole: routes of earlier imports and of the command line that are
    /// not among them go.
    #[serde(default)]
    pub replace: bool,
    /// Whether to say what would change and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// The reply to `POST /v1/import`: the difference between what served and what serves now, or
/// would.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Imported {
    /// [`VERSION`].
    pub version: u32,
    /// Whether nothing was changed because `dry_run` was asked for.
    pub dry_run: bool,
    /// Routes that are new.
    pub added: Vec<RawRoute>,
    /// Routes that are different.
    pub changed: Vec<Differing>,
    /// Routes that are gone.
    pub removed: Vec<RawRoute>,
    /// How many routes stay as they are.
    pub unchanged: usize,
    /// What the operator should know although the change was made.
    pub warnings: Vec<String>,
}

/// `GET /v1/history`, `redirector route history -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeList {
    /// [`VERSION`].
    pub version: u32,
    /// The changes that are kept, the last one first.
    pub changes: Vec<Change>,
}

/// A change of the stored routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Its number; they grow by one.
    pub number: u64,
    /// When.
    pub at: jiff::Timestamp,
    /// The user of the process that asked for it.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The process; null when it was not visible to the agent.
    pub pid: Option<i32>,
    /// `added`, `changed`, `removed`, `restored`, `imported` or `rolled_back`.
    pub action: String,
    /// The change that it took back.
    pub undoes: Option<u64>,
    /// Whether it was taken back.
    pub undone: bool,
    /// The sources that it concerns.
    pub sources: Vec<SourceName>,
}

/// `GET /v1/history/{number}`, `redirector route history NUMBER -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeShow {
    /// The change.
    pub change: Change,
    /// What it did to the stored routes.
    #[serde(flatten)]
    pub diff: Imported,
}

/// The body of `POST /v1/rollback`; an empty one is `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Whether to say what would change and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// The reply to `POST /v1/rollback`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The change that was taken back.
    pub undone: Change,
    /// What that changed.
    #[serde(flatten)]
    pub result: Imported,
}

/// One route before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Differing {
    /// What it was.
    pub old: RawRoute,
    /// What it is now.
    pub new: RawRoute,
}

/// `GET /v1/export`, `redirector route export -o json`: what `POST /v1/import` takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// [`VERSION`].
    pub version: u32,
    /// Every route that serves, by source.
    pub routes: Vec<RawRoute>,
}

/// The reply to `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// [`VERSION`].
    pub version: u32,
    /// Sources that were added, changed or removed by it.
    pub changed: Vec<SourceName>,
    /// Keys whose new value needs a restart of the agent to take effect.
    pub restart_needed_for: Vec<String>,
}
