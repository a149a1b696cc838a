//! A change of the stored routes, route by route: saved first, then applied.

use std::collections::BTreeSet;

use super::{
    source::SourceName,
    store::{StoredRoute, StoredRoutes},
};

/// One source's stored route before and after a change. A change is a list of these, so that it
/// costs as much as it changes, however many routes there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The source.
    pub source: SourceName,
    /// What is stored for it; `None`: nothing.
    pub before: Option<StoredRoute>,
    /// What will be.
    pub after: Option<StoredRoute>,
}

impl Edit {
    /// What makes `after` of `before`, in the order of the sources.
    pub fn between(before: &StoredRoutes, after: &StoredRoutes) -> Vec<Self> {
        let changed = before
            .iter()
            .filter(|(source, route)| after.get(*source) != Some(route))
            .map(|(source, _)| source);
        let added = after.keys().filter(|source| !before.contains_key(*source));
        let sources: BTreeSet<&SourceName> = changed.chain(added).collect();
        let edit = |source: &SourceName| Self {
            source: source.clone(),
            before: before.get(source).cloned(),
            after: after.get(source).cloned(),
        };
        sources.into_iter().map(edit).collect()
    }
}
