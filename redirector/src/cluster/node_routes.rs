//! What a node makes of the slices, and the copy of them on its disk.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::resources::{FailingRoute, RedirectRouteSliceSpec};
use crate::{
    atomic_file::{self, FileError},
    error::error_chain,
    pool::Pool,
    route::{RawRoute, Route, SourceName, check_outside_pool},
};

/// The version of the file's shape.
const VERSION: u32 = 1;

/// The routes of the cluster, as this node understands them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeRoutes {
    /// The revision that they are of; 0 if there never were any.
    pub revision: i64,
    /// Within how many seconds a change is reported.
    pub report_within: u32,
    /// By their sources, with the names of their RedirectRoutes.
    pub routes: BTreeMap<SourceName, (String, Route)>,
    /// Those that this node does not understand.
    pub failing: Vec<FailingRoute>,
}

impl NodeRoutes {
    /// The routes of all slices; none while the first slice is missing, since then they are being
    /// removed together with the controller, which removes no route.
    pub fn of(slices: &[&RedirectRouteSliceSpec], is_whole: bool, pool: &Pool) -> Option<Self> {
        if !is_whole {
            return None;
        }
        let mut newest = BTreeMap::new();
        for route in slices.iter().flat_map(|slice| &slice.routes) {
            // While slices are split, a route may be in two of them.
            let known = newest.entry(route.name.as_str()).or_insert(route);
            if known.revision < route.revision {
                *known = route;
            }
        }
        let mut this = Self {
            revision: slices.iter().map(|slice| slice.revision).max().unwrap_or_default(),
            report_within: slices.iter().map(|s| s.report_within_seconds).max().unwrap_or(1),
            ..Self::default()
        };
        for (name, route) in newest {
            match understand(&route.route, pool) {
                Ok(route) => {
                    this.routes.insert(route.source.clone(), (name.to_owned(), route));
                }
                Err(reason) => {
                    this.failing.push(FailingRoute { route: name.to_owned(), reason });
                }
            }
        }
        Some(this)
    }
}

fn understand(value: &serde_json::Value, pool: &Pool) -> Result<Route, String> {
    let raw: RawRoute = serde_json::from_value(value.clone())
        .map_err(|error| format!("this agent does not understand it: {error}"))?;
    let route = Route::try_from(raw).map_err(|problems| problems.one_line())?;
    check_outside_pool(&route, pool).map_err(|problems| problems.one_line())?;
    Ok(route)
}

/// The slices on this node's disk, with which the agent starts.
#[derive(Clone, Debug)]
pub struct SliceCopy {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    version: u32,
    slices: Vec<RedirectRouteSliceSpec>,
}

impl SliceCopy {
    /// The copy in the state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join("cluster-routes.json") }
    }

    /// The slices of the last good set; none if there is no readable one. A start does not fail
    /// for it: the API has them.
    pub fn read(&self) -> Option<Vec<RedirectRouteSliceSpec>> {
        let read = atomic_file::read_if_present(&self.path)
            .inspect_err(|error| warn!("{}", error_chain(error)))
            .ok()??;
        match serde_json::from_slice::<OnDisk>(&read) {
            Ok(file) if file.version == VERSION => Some(file.slices),
            Ok(file) => {
                warn!(version = file.version, "{} is another version's", self.path.display());
                None
            }
            Err(error) => {
                warn!("{} is damaged: {error}", self.path.display());
                None
            }
        }
    }

    /// Replaces the copy.
    ///
    /// # Errors
    /// If it can't be written; the one before stays.
    pub fn write(&self, slices: &[&RedirectRouteSliceSpec]) -> Result<(), FileError> {
        #[derive(Serialize)]
        struct Borrowed<'s> {
            version: u32,
            slices: &'s [&'s RedirectRouteSliceSpec],
        }
        let text = serde_json::to_vec(&Borrowed { version: VERSION, slices }).expect("JSON");
        atomic_file::write_atomically(&self.path, &text)
    }

    /// Removes the copy, where the routes of the cluster are not wanted any more.
    pub fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!("failed to remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::resources::SliceRoute;

    fn pool() -> Pool {
        Pool::default()
    }

    fn slice(revision: i64, routes: &[(&str, i64, serde_json::Value)]) -> RedirectRouteSliceSpec {
        let routes = routes.iter().map(|(name, revision, route)| SliceRoute {
            name: (*name).to_owned(),
            generation: 1,
            revision: *revision,
            route: route.clone(),
        });
        RedirectRouteSliceSpec { revision, report_within_seconds: 2, routes: routes.collect() }
    }

    #[test]
    fn a_route_that_is_not_understood_leaves_the_others() {
        let good = json!({"source": "a.internal", "destination": "lb.example"});
        let newer = json!({"source": "b.internal", "destination": "lb.example", "weight": 3});
        let inside = json!({"source": "c.internal", "destination": "198.18.0.9"});
        let slice = slice(4, &[("a", 2, good), ("b", 4, newer), ("c", 3, inside)]);
        let routes = NodeRoutes::of(&[&slice], true, &pool()).expect("slices");
        assert_eq!((routes.revision, routes.report_within), (4, 2));
        assert_eq!(routes.routes.values().map(|(name, _)| name).collect::<Vec<_>>(), ["a"]);
        let reasons: Vec<_> = routes.failing.iter().map(|f| f.reason.as_str()).collect();
        assert!(reasons[0].contains("weight") && reasons[1].contains("in the pool"), "{reasons:?}");
    }

    #[test]
    fn of_a_route_in_two_slices_the_newer_is_taken() {
        let old = json!({"source": "a.internal", "destination": "old.example"});
        let new = json!({"source": "a.internal", "destination": "new.example"});
        let (one, other) = (slice(8, &[("a", 8, new)]), slice(7, &[("a", 3, old)]));
        for slices in [[&one, &other], [&other, &one]] {
            let routes = NodeRoutes::of(&slices, true, &pool()).expect("slices");
            let (_, route) = routes.routes.values().next().expect("a route");
            assert_eq!(RawRoute::from(route).destination.to_string(), "new.example");
        }
    }

    #[test]
    fn slices_that_vanish_with_their_controller_remove_no_route() {
        assert_eq!(NodeRoutes::of(&[], false, &pool()), None);
        let empty = slice(9, &[]);
        let routes = NodeRoutes::of(&[&empty], true, &pool()).expect("slices");
        assert!(routes.routes.is_empty());
    }

    #[test]
    fn the_copy_on_disk_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a directory");
        let copy = SliceCopy::new(folder.path());
        assert_eq!(copy.read(), None);
        let good = json!({"source": "a.internal", "destination": "lb.example"});
        let slice = slice(4, &[("a", 2, good)]);
        copy.write(&[&slice]).expect("a file");
        assert_eq!(copy.read(), Some(vec![slice]));
        std::fs::write(folder.path().join("cluster-routes.json"), "{").expect("a file");
        assert_eq!(copy.read(), None);
        copy.remove();
        assert_eq!(std::fs::read_dir(folder.path()).expect("a directory").count(), 0);
    }
}
