//! The routes in effect: the cluster's, overlaid by the file's, and those by the ones of the
//! command line and of imports. What is closer to the node hides what is farther away.
//!
//! A [`RouteSet`] is a value. A change of one route is an [`Edit`], which is saved and then
//! applied. A change of many is made in a clone of the set; the difference is saved, and then the
//! clone replaces the set. So a change that fails half way has changed nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    definition::Route,
    diff::RouteDiff,
    edit::Edit,
    origin::RouteOrigin,
    patch::RoutePatch,
    pool_check::check_outside_pool,
    problems::RouteProblems,
    source::SourceName,
    store::{StoredRoute, StoredRoutes},
};
use crate::pool::Pool;

/// The routes of the cluster, the configuration file and the store.
#[derive(Clone, Debug)]
pub struct RouteSet {
    path: PathBuf,
    pool: Pool,
    /// Those of the file, and of the cluster where the file has none.
    base: StoredRoutes,
    /// Those of the cluster that the file hides.
    hidden: BTreeMap<SourceName, Route>,
    stored: StoredRoutes,
    /// How many stored routes hide one of the base.
    hiding: usize,
}

/// A route in effect, and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct EffectiveRoute<'s> {
    /// The route.
    pub route: &'s Route,
    /// Where it comes from.
    pub origin: RouteOrigin,
    /// The route of the same source in the file or the cluster, which this one hides.
    pub hides: Option<&'s Route>,
}

/// Why a change was refused; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteSetError {
    /// The source has a route.
    #[error("`{source_name}` already has a route, from the {origin}{}: change it by `redirector \
        route set {source_name}`", of_file(*origin, file))]
    Exists {
        /// The source.
        source_name: SourceName,
        /// Where that route comes from.
        origin: RouteOrigin,
        /// The configuration file.
        file: PathBuf,
    },
    /// The source has no route.
    #[error("there is no route of `{source_name}`{}", suggestion(nearest.as_ref()))]
    Unknown {
        /// The source.
        source_name: SourceName,
        /// The one that was meant, perhaps.
        nearest: Option<SourceName>,
    },
    /// The route is the file's.
    #[error("the route of `{source_name}` comes from {}: remove it there", file.display())]
    InFile {
        /// The source.
        source_name: SourceName,
        /// The configuration file.
        file: PathBuf,
    },
    /// The route is the cluster's.
    #[error(
        "the route of `{source_name}` is the cluster's: remove it by `redirector route remove \
        --cluster {source_name}` or `kubectl delete redirectroute`"
    )]
    InCluster {
        /// The source.
        source_name: SourceName,
    },
    /// Replacing everything would have to remove routes of the file.
    #[error("{} has `{}`, which an import can't remove: edit that file, or import without \
        --replace", file.display(), sources.join("`, `"))]
    ReplaceFile {
        /// The sources of those routes.
        sources: Vec<String>,
        /// The configuration file.
        file: PathBuf,
    },
    /// The route would not be valid.
    #[error(transparent)]
    Problems(#[from] RouteProblems),
}

fn suggestion(nearest: Option<&SourceName>) -> String {
    nearest.map_or_else(
        || "; `redirector route list` shows all".into(),
        |near| format!(": did you mean `{near}`?"),
    )
}

fn of_file(origin: RouteOrigin, file: &Path) -> String {
    if origin == RouteOrigin::File { format!(" {}", file.display()) } else { String::new() }
}

fn based(origin: RouteOrigin, route: Route) -> (SourceName, StoredRoute) {
    (route.source.clone(), StoredRoute { origin, route })
}

fn effective<'s>(stored: &'s StoredRoute, base: Option<&'s StoredRoute>) -> EffectiveRoute<'s> {
    let StoredRoute { origin, route } = stored;
    EffectiveRoute { route, origin: *origin, hides: base.map(|based| &based.route) }
}

impl RouteSet {
    /// The routes of the configuration file at `path`, whose sources are distinct, and those of the
    /// store.
    pub fn new(path: PathBuf, pool: Pool, routes: Vec<Route>, stored: StoredRoutes) -> Self {
        let base = routes.into_iter().map(|route| based(RouteOrigin::File, route)).collect();
        let hidden = BTreeMap::new();
        let mut set = Self { path, pool, base, hidden, stored, hiding: 0 };
        set.count();
        set
    }

    /// The same with other routes in the file: a reload.
    pub fn with_file(&self, pool: Pool, routes: Vec<Route>) -> Self {
        let of_cluster = self.base.values().filter(|based| based.origin == RouteOrigin::Cluster);
        let cluster = of_cluster.map(|based| &based.route).chain(self.hidden.values()).cloned();
        Self::new(self.path.clone(), pool, routes, self.stored.clone())
            .with_cluster(cluster.collect())
    }

    /// The same with other routes of the cluster, whose sources are distinct and which lie outside
    /// of the pool.
    #[must_use]
    pub fn with_cluster(mut self, routes: Vec<Route>) -> Self {
        self.base.retain(|_, based| based.origin != RouteOrigin::Cluster);
        let (hidden, shown): (Vec<_>, Vec<_>) =
            routes.into_iter().partition(|route| self.base.contains_key(&route.source));
        self.hidden = hidden.into_iter().map(|route| (route.source.clone(), route)).collect();
        self.base.extend(shown.into_iter().map(|route| based(RouteOrigin::Cluster, route)));
        self.count();
        self
    }

    /// Every route in effect, in the order of the sources.
    pub fn iter(&self) -> impl Iterator<Item = EffectiveRoute<'_>> {
        let (mut base, mut stored) = (self.base.iter().peekable(), self.stored.iter().peekable());
        std::iter::from_fn(move || {
            let next_stored = stored.peek().map(|(source, _)| *source);
            // The base's are those below the next stored one; one of the same source is hidden by
            // it.
            if let Some((source, based)) =
                base.next_if(|(source, _)| next_stored.is_none_or(|stored| *source <= stored))
                && next_stored != Some(source)
            {
                return Some(effective(based, None));
            }
            let (source, stored) = stored.next()?;
            Some(effective(stored, self.base.get(source)))
        })
    }

    /// How many routes are in effect.
    pub fn len(&self) -> usize {
        self.base.len() + self.stored.len() - self.hiding
    }

    /// Whether no route is in effect.
    pub fn is_empty(&self) -> bool {
        self.base.is_empty() && self.stored.is_empty()
    }

    /// The route of a source.
    pub fn get(&self, source: &SourceName) -> Option<EffectiveRoute<'_>> {
        let base = self.base.get(source);
        match self.stored.get(source) {
            Some(stored) => Some(effective(stored, base)),
            None => base.map(|based| effective(based, None)),
        }
    }

    /// The route that serves clients that ask for `source`: its own, else that of the longest
    /// wildcard that matches it.
    pub fn serving(&self, source: &SourceName) -> Option<EffectiveRoute<'_>> {
        self.get(source).or_else(|| {
            let matching = self.iter().filter(|entry| entry.route.source.matches(source.name()));
            matching
                .filter(|_| !source.is_wildcard())
                .max_by_key(|entry| entry.route.source.precedence())
        })
    }

    /// The stored routes.
    pub fn stored(&self) -> &StoredRoutes {
        &self.stored
    }

    /// The edits that turn the stored routes into those of `next`.
    pub fn edits(&self, next: &Self) -> Vec<Edit> {
        Edit::between(&self.stored, &next.stored)
    }

    /// The edit that adds the route of a source that has none.
    ///
    /// # Errors
    /// When it has one, or the route does not fit the pool.
    pub fn plan_add(&self, route: Route, origin: RouteOrigin) -> Result<Edit, RouteSetError> {
        if let Some(entry) = self.get(&route.source) {
            return Err(RouteSetError::Exists {
                source_name: route.source.clone(),
                origin: entry.origin,
                file: self.path.clone(),
            });
        }
        check_outside_pool(&route, &self.pool)?;
        Ok(Edit {
            source: route.source.clone(),
            before: None,
            after: Some(StoredRoute { origin, route }),
        })
    }

    /// The edit that changes a route; `None` when the route is like that already, and then it keeps
    /// its origin.
    /// A route of the file or the cluster is not changed but hidden by one that is kept in the
    /// store.
    ///
    /// # Errors
    /// When there is none, or it would not be valid.
    pub fn plan_set(
        &self,
        source: &SourceName,
        patch: &RoutePatch,
    ) -> Result<Option<Edit>, RouteSetError> {
        let entry = self.get(source).ok_or_else(|| self.unknown(source))?;
        let route = entry.route.patched(patch)?;
        check_outside_pool(&route, &self.pool)?;
        if route == *entry.route {
            return Ok(None);
        }
        let after = Some(StoredRoute { origin: RouteOrigin::CommandLine, route });
        Ok(Some(Edit { source: source.clone(), before: self.stored.get(source).cloned(), after }))
    }

    /// The edit that removes a stored route. A route of the file or the cluster that it hides takes
    /// effect again; one that only these have is refused.
    ///
    /// # Errors
    /// When there is none, or only the file or the cluster has it.
    pub fn plan_remove(&self, source: &SourceName) -> Result<Edit, RouteSetError> {
        match self.stored.get(source) {
            Some(stored) => {
                Ok(Edit { source: source.clone(), before: Some(stored.clone()), after: None })
            }
            None => Err(match self.base.get(source).map(|based| based.origin) {
                Some(RouteOrigin::Cluster) => {
                    RouteSetError::InCluster { source_name: source.clone() }
                }
                Some(_) => {
                    let file = self.path.clone();
                    RouteSetError::InFile { source_name: source.clone(), file }
                }
                None => self.unknown(source),
            }),
        }
    }

    /// Applies a saved change.
    pub fn apply(&mut self, edit: Edit) {
        let before = match edit.after {
            Some(route) => self.stored.insert(edit.source.clone(), route).is_some(),
            None => self.stored.remove(&edit.source).is_some(),
        };
        if self.base.contains_key(&edit.source) {
            self.hiding = self.hiding + usize::from(self.stored.contains_key(&edit.source))
                - usize::from(before);
        }
    }

    fn count(&mut self) {
        self.hiding = self.stored.keys().filter(|source| self.base.contains_key(*source)).count();
    }

    /// Adds imported routes and returns the difference; `--dry-run` does this to a clone.
    ///
    /// A route of another origin becomes an imported one where it differs, and is left alone where
    /// it does not.
    /// With `replace` the imported routes become the whole: stored routes that are not among them
    /// go, and a route of the file that is not is an error. Those of the cluster stay.
    pub fn import(
        &mut self,
        routes: Vec<Route>,
        replace: bool,
    ) -> Result<RouteDiff, RouteSetError> {
        for route in &routes {
            check_outside_pool(route, &self.pool)?;
        }
        let before = self.clone();
        if replace {
            let new: BTreeSet<_> = routes.iter().map(|route| &route.source).collect();
            let sources: Vec<_> = self
                .base
                .iter()
                .filter(|(source, based)| {
                    based.origin == RouteOrigin::File && !new.contains(source)
                })
                .map(|(source, _)| source.to_string())
                .collect();
            if !sources.is_empty() {
                return Err(RouteSetError::ReplaceFile { sources, file: self.path.clone() });
            }
            self.stored.retain(|source, _| new.contains(source));
        }
        for route in routes {
            if self.get(&route.source).is_none_or(|entry| *entry.route != route) {
                self.stored.insert(
                    route.source.clone(),
                    StoredRoute { origin: RouteOrigin::Import, route },
                );
            }
        }
        // Rebuilt: a tree that grew in order is half empty.
        self.stored = std::mem::take(&mut self.stored).into_iter().collect();
        self.count();
        Ok(RouteDiff::between(
            before.iter().map(|entry| entry.route),
            self.iter().map(|entry| entry.route),
        ))
    }

    /// Replaces the stored routes and returns the difference of what is in effect.
    ///
    /// # Errors
    /// When a route of it does not fit the pool; nothing has changed then.
    pub fn restore(&mut self, stored: StoredRoutes) -> Result<RouteDiff, RouteProblems> {
        for route in stored.values() {
            check_outside_pool(&route.route, &self.pool)?;
        }
        let before = self.clone();
        self.stored = stored;
        self.count();
        Ok(RouteDiff::between(
            before.iter().map(|entry| entry.route),
            self.iter().map(|entry| entry.route),
        ))
    }

    /// The error for a source without a route, with the nearest one.
    pub fn unknown(&self, source: &SourceName) -> RouteSetError {
        let text = source.to_string();
        let near = |candidate: &SourceName| {
            (strsim::damerau_levenshtein(&text, &candidate.to_string()), candidate.clone())
        };
        let nearest = self
            .iter()
            .map(|entry| near(&entry.route.source))
            .min()
            .filter(|(distance, _)| *distance <= 3);
        RouteSetError::Unknown {
            source_name: source.clone(),
            nearest: nearest.map(|(_, source)| source),
        }
    }
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
