//! The stored routes, those of the command line and of imports, on disk.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};

use super::{
    definition::Route, origin::RouteOrigin, problems::RouteProblems, raw::RawRoute,
    source::SourceName,
};
use crate::atomic_file::{self, FileError, Quarantine};

/// The version of the file's shape that this binary writes and reads.
/// In version 1, `*.zone` meant what `**.zone` means now.
const VERSION: u32 = 2;

/// Where the routes are kept: `state_dir/routes.json`.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    /// What [`Store::save`] copies first.
    damaged: Option<Quarantine>,
}

/// The stored routes by their sources.
pub type StoredRoutes = BTreeMap<SourceName, StoredRoute>;

/// A stored route and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRoute {
    /// Who made it: the command line or an import.
    pub origin: RouteOrigin,
    /// The route.
    pub route: Route,
}

impl StoredRoute {
    fn with_deep_wildcard(mut self) -> Self {
        self.route.source = self.route.source.with_deep_wildcard();
        self
    }
}

/// What was read from the file.
#[derive(Debug)]
pub struct OpenedStore {
    /// The store, for saving.
    pub store: Store,
    /// The routes by their sources.
    pub routes: StoredRoutes,
    /// Set when the file was damaged: what is wrong with it, where it is now, and how many routes
    /// were kept. It is also logged.
    pub warning: Option<String>,
}

/// Why the routes could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is from a newer redirector.
    #[error("{} has version {found}, this binary reads {VERSION}: run the newer redirector, or \
        move the file away and add its routes again", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The file could not be read or written.
    #[error(transparent)]
    Durable(#[from] FileError),
}

/// What every version of the file has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The file's shape.
#[derive(Serialize, Deserialize)]
struct OnDisk<R> {
    version: u32,
    routes: R,
}

/// The routes of a file, each of which may be none. Each is understood as it is read, so that a
/// large file takes no memory but its routes'.
struct Routes(Vec<Result<StoredRoute, String>>);

impl<'de> Deserialize<'de> for Routes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Routes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of routes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Routes, A::Error> {
                let mut routes = Vec::new();
                while let Some(value) = list.next_element()? {
                    routes.push(stored(value));
                }
                Ok(Routes(routes))
            }
        }
        deserializer.deserialize_seq(Each)
    }
}

/// A route as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RouteOnDisk {
    #[serde(alias = "hand")]
    origin: RouteOrigin,
    route: RawRoute,
}

impl RouteOnDisk {
    /// What was configured.
    pub(crate) fn route(&self) -> &RawRoute {
        &self.route
    }

    /// Reads what was written when `*.zone` meant any depth.
    pub(crate) fn with_deep_wildcard(mut self) -> Self {
        if let Ok(source) = self.route.source.parse::<SourceName>() {
            self.route.source = source.with_deep_wildcard().to_string();
        }
        self
    }
}

impl From<&StoredRoute> for RouteOnDisk {
    fn from(stored: &StoredRoute) -> Self {
        Self { origin: stored.origin, route: (&stored.route).into() }
    }
}

impl TryFrom<RouteOnDisk> for StoredRoute {
    type Error = RouteProblems;

    fn try_from(written: RouteOnDisk) -> Result<Self, RouteProblems> {
        Ok(Self { origin: written.origin, route: Route::try_from(written.route)? })
    }
}

impl Store {
    /// Reads the routes at `path`, or none when there is no file. Nothing is written. The readable
    /// routes of a damaged file are kept, and the warning lists the rest.
    pub fn open(path: PathBuf) -> Result<OpenedStore, StoreError> {
        let mut store = Self { path, damaged: None };
        let Some(bytes) = atomic_file::read_if_present(&store.path)? else {
            return Ok(OpenedStore { store, routes: BTreeMap::new(), warning: None });
        };
        let (routes, damage) = read(&bytes, &store.path)?;
        if damage.is_empty() {
            let warning = store.upgrade_warning(&bytes, &routes);
            return Ok(OpenedStore { store, routes, warning });
        }
        let quarantine = Quarantine::plan(&store.path);
        let warning = format!(
            "{} was damaged and is now {}: {} of its routes were kept; add the others again ({})",
            store.path.display(),
            quarantine.copy().display(),
            routes.len(),
            damage.join("; ")
        );
        store.damaged = Some(quarantine);
        tracing::warn!("{warning}");
        Ok(OpenedStore { store, routes, warning: Some(warning) })
    }

    /// Describes a file of version 1 that has wildcards, whose meaning they keep. It is rewritten
    /// by the next [`Store::save`].
    fn upgrade_warning(&self, bytes: &[u8], routes: &StoredRoutes) -> Option<String> {
        let is_old = serde_json::from_slice(bytes)
            .is_ok_and(|Versioned { version }: Versioned| version < VERSION);
        let first = routes.keys().find(|source| is_old && source.is_wildcard())?;
        let warning = format!(
            "{}: wildcards that were written as `*.{}` are now written as `{first}`: both match \
                names of any depth, but `*.` matches one label from this version on",
            self.path.display(),
            first.name(),
        );
        tracing::warn!("{warning}");
        Some(warning)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the routes, after a copy of a damaged file; on an error the file is as it was.
    pub fn save(&mut self, routes: &StoredRoutes) -> Result<(), FileError> {
        Quarantine::settle(&mut self.damaged)?;
        let routes: Vec<RouteOnDisk> = routes.values().map(RouteOnDisk::from).collect();
        let text = serde_json::to_string_pretty(&OnDisk { version: VERSION, routes })
            .expect("texts are JSON")
            + "\n";
        atomic_file::write_atomically(&self.path, text.as_bytes())
    }
}

/// The routes of a file's bytes, and what is wrong with the others.
fn read(bytes: &[u8], path: &Path) -> Result<(StoredRoutes, Vec<String>), StoreError> {
    if let Ok(Versioned { version }) = serde_json::from_slice(bytes)
        && version > VERSION
    {
        return Err(StoreError::Newer { path: path.to_owned(), found: version });
    }
    let read = match serde_json::from_slice::<OnDisk<Routes>>(bytes) {
        Ok(file) if file.version < 2 => file
            .routes
            .0
            .into_iter()
            .map(|route| route.map(StoredRoute::with_deep_wildcard))
            .collect(),
        Ok(file) => file.routes.0,
        Err(error) => return Ok((BTreeMap::new(), vec![error.to_string()])),
    };
    let mut damage = Vec::new();
    let mut good: Vec<_> = read
        .into_iter()
        .filter_map(|route| route.map_err(|reason| damage.push(reason)).ok())
        .collect();
    good.sort_by(|one, other| one.route.source.cmp(&other.route.source));
    good.dedup_by(|other, one| {
        let twice = other.route.source == one.route.source;
        if twice {
            damage.push(format!("`{}` stands there twice", one.route.source));
        }
        twice
    });
    // Collected and not inserted: a tree that grows in order is half empty.
    Ok((good.into_iter().map(|stored| (stored.route.source.clone(), stored)).collect(), damage))
}

fn stored(value: serde_json::Value) -> Result<StoredRoute, String> {
    let written: RouteOnDisk = serde_json::from_value(value).map_err(|error| error.to_string())?;
    StoredRoute::try_from(written).map_err(|problems| problems.one_line())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> StoredRoutes {
        let routes = crate::route::import::parse(
            "[{source: a, destination: lb, ports: [443]}, \
                {source: '**.b', destination: 203.0.113.7}]",
        );
        let stored = |route: Route| {
            (route.source.clone(), StoredRoute { origin: RouteOrigin::Import, route })
        };
        routes.expect("routes").into_iter().map(stored).collect()
    }

    #[test]
    fn saved_routes_round_trip() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("routes.json");
        let OpenedStore { mut store, routes, warning } = reopened(&path);
        assert!(routes.is_empty() && warning.is_none());
        store.save(&some()).expect("saved");
        let again = reopened(&path);
        assert_eq!((again.routes, again.warning), (some(), None));
    }

    #[test]
    fn wildcards_of_version_1_keep_their_meaning() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("routes.json");
        let route = r#"{"origin":"import","route":{"source":"*.b","destination":"203.0.113.7"}}"#;
        let before = format!(r#"{{"version":1,"routes":[{route}]}}"#);
        std::fs::write(&path, &before).expect("written");
        Store::open(path.clone()).expect("opened");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), before, "nothing was written");
        let opened = reopened(&path);
        let sources = |opened: &OpenedStore| {
            opened.routes.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(sources(&opened), ["**.b"]);
        assert!(opened.warning.as_ref().expect("a warning").contains("`**.b`"));
        let again = Store::open(path).expect("opened");
        assert_eq!((sources(&again), again.warning), (vec!["**.b".to_owned()], None));
    }

    #[test]
    fn a_damaged_file_is_copied_and_its_good_routes_are_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("routes.json");
        Store { path: path.clone(), damaged: None }.save(&some()).expect("saved");
        let damaged =
            std::fs::read_to_string(&path).expect("read").replace("203.0.113.7", "203.0.113.700");
        std::fs::write(&path, &damaged).expect("written");
        let opened = reopened(&path);
        assert_eq!(opened.routes.keys().map(ToString::to_string).collect::<Vec<_>>(), ["a"]);
        let warning = opened.warning.expect("a warning");
        assert!(
            warning.contains("routes.json.damaged-1") && warning.contains("203.0.113.700"),
            "{warning}"
        );
        assert_eq!(
            std::fs::read_to_string(directory.path().join("routes.json.damaged-1")).expect("kept"),
            damaged
        );
        assert_eq!(reopened(&path).routes.len(), 1, "what was kept is on disk again");
    }

    /// Opens and saves, as an agent that starts.
    fn reopened(path: &std::path::Path) -> OpenedStore {
        let mut opened = Store::open(path.to_owned()).expect("opened");
        if opened.warning.is_some() {
            opened.store.save(&opened.routes).expect("saved");
        }
        opened
    }

    #[test]
    fn half_a_file_is_quarantined() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("routes.json");
        Store { path: path.clone(), damaged: None }.save(&some()).expect("saved");
        let whole = std::fs::read(&path).expect("read");
        for n in 1..=3 {
            std::fs::write(&path, &whole[..whole.len() - 10 * n]).expect("written");
            let opened = reopened(&path);
            assert!(opened.routes.is_empty());
            assert!(
                opened.warning.expect("a warning").contains(&format!("routes.json.damaged-{n}"))
            );
            assert!(reopened(&path).warning.is_none(), "it is reported once");
        }
    }

    #[test]
    fn a_file_of_a_newer_version_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("routes.json");
        let newer = r#"{"version": 3, "shape": "unknown"}"#;
        std::fs::write(&path, newer).expect("written");
        assert!(matches!(Store::open(path.clone()), Err(StoreError::Newer { found: 3, .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("read"), newer);
    }
}
