//! The shapes of changes: what requests ask for and what they did.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::control::api::version::VERSION;
use crate::{
    control::api::route::RouteView,
    route::{RawRoute, SourceName},
};

/// The reply to `POST`, `PATCH` and `DELETE` on routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// [`VERSION`].
    pub version: u32,
    /// The effect.
    pub change: ChangeKind,
    /// The source of the route.
    pub source: SourceName,
    /// The route that is live now; null after a removal.
    pub route: Option<RouteView>,
    /// What the operator should know although the change was made.
    pub warnings: Vec<String>,
}

/// The effect of a change on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The route is new.
    Added,
    /// The route is different.
    Changed,
    /// The route was like that already.
    Unchanged,
    /// The route was removed.
    Removed,
    /// An override was removed; the file's route serves again.
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
    /// Whether to replace all routes of earlier imports and of the command line: those that are not
    /// among `routes` are removed.
    #[serde(default)]
    pub replace: bool,
    /// Whether to show what would change without changing it.
    #[serde(default)]
    pub dry_run: bool,
}

/// The reply to `POST /v1/import`: the difference between the routes before and after, or what it
/// would be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Imported {
    /// [`VERSION`].
    pub version: u32,
    /// Whether this is only what would change, by `dry_run`.
    pub dry_run: bool,
    /// Routes that are new.
    pub added: Vec<RawRoute>,
    /// Routes that are different.
    pub changed: Vec<Differing>,
    /// Routes that were removed.
    pub removed: Vec<RawRoute>,
    /// How many routes have not changed.
    pub unchanged: usize,
    /// What the operator should know although the change was made.
    pub warnings: Vec<String>,
}

/// `GET /v1/history`, `redirector route history -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeList {
    /// [`VERSION`].
    pub version: u32,
    /// The recorded changes, the last one first.
    pub changes: Vec<Change>,
}

/// A change of the stored routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Its number, one more than that of the change before.
    pub number: u64,
    /// When.
    pub at: jiff::Timestamp,
    /// The user of the calling process.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The calling process; null when it was not visible to the agent.
    pub pid: Option<i32>,
    /// `added`, `changed`, `removed`, `restored`, `imported` or `rolled_back`.
    pub action: String,
    /// The change that this rollback undoes.
    pub undoes: Option<u64>,
    /// Whether a rollback has undone it.
    pub undone: bool,
    /// The sources of the changed routes.
    pub sources: Vec<SourceName>,
}

/// `GET /v1/history/{number}`, `redirector route history NUMBER -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeShow {
    /// The change.
    pub change: Change,
    /// The routes it changed.
    #[serde(flatten)]
    pub diff: Imported,
}

/// The body of `POST /v1/rollback`; an empty one is `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Whether to show what would change without changing it.
    #[serde(default)]
    pub dry_run: bool,
}

/// The reply to `POST /v1/rollback`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The change that was undone.
    pub undone: Change,
    /// The routes that this changed.
    #[serde(flatten)]
    pub result: Imported,
}

/// One route before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Differing {
    /// The route before.
    pub old: RawRoute,
    /// The route now.
    pub new: RawRoute,
}

/// `GET /v1/export`, `redirector route export -o json`: what `POST /v1/import` takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// [`VERSION`].
    pub version: u32,
    /// `one_label`: what `*` means in the sources.
    #[serde(default)]
    pub wildcards: String,
    /// Every route in force, by source.
    pub routes: Vec<RawRoute>,
}

/// The reply to `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// [`VERSION`].
    pub version: u32,
    /// Sources of routes that it added, changed or removed.
    pub changed: Vec<SourceName>,
    /// Keys whose new value takes effect after a restart of the agent.
    pub restart_needed_for: Vec<String>,
}
