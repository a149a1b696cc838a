//! A follower of one name, with its state file in a temporary directory.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use redirector::{
    backend::{Follower, FollowerSettings, Resolved, Target},
    config::Upstream,
    pool::Pool,
    route::{Destination, SourceName},
};
use tempfile::TempDir;

use crate::{running_shim::TEST_TIMEOUT, scripted_zone::NAME};

pub(crate) fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().expect("an address")).collect()
}

pub(crate) fn source() -> SourceName {
    "artifactory.internal.company.net".parse().expect("a source")
}

pub(crate) fn by_name(name: &str) -> Target {
    Target { destination: Destination::Name(name.into()), resolver: None }
}

pub(crate) fn only(target: Target) -> BTreeMap<SourceName, Target> {
    BTreeMap::from([(source(), target)])
}

pub(crate) struct FollowerRig {
    pub(crate) follower: Follower,
    pub(crate) directory: StateDirectory,
}

/// A temporary directory that is removed although the follower, dropped just before, may still be
/// writing its file.
pub(crate) struct StateDirectory(TempDir);

impl StateDirectory {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for StateDirectory {
    fn drop(&mut self) {
        let is_refilled = || {
            std::fs::remove_dir_all(self.path())
                .is_err_and(|error| error.kind() == std::io::ErrorKind::DirectoryNotEmpty)
        };
        for _ in 0..200 {
            if !is_refilled() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl FollowerRig {
    pub(crate) fn start(servers: &[SocketAddr]) -> Self {
        let directory = StateDirectory::new();
        Self { follower: start(servers, &state_file(directory.path())), directory }
    }

    /// Follows [`NAME`] and waits for its first answer.
    pub(crate) async fn follow(servers: &[SocketAddr]) -> (Self, Resolved) {
        let rig = Self::start(servers);
        rig.follower.set_targets(only(by_name(NAME)));
        let resolved = rig.follower.wait_for_answer(&source(), TEST_TIMEOUT).await;
        (rig, resolved)
    }

    pub(crate) fn now(&self) -> Resolved {
        Resolved::clone(&self.follower.current()[&source()])
    }

    /// Waits until the published state meets the condition.
    pub(crate) async fn until(
        &self,
        what: &str,
        condition: impl Fn(&Resolved) -> bool,
    ) -> Resolved {
        let mut updates = self.follower.subscribe();
        let found = tokio::time::timeout(TEST_TIMEOUT, async {
            while !condition(&self.now()) {
                updates.changed().await.expect("still running");
            }
        });
        let found = found.await;
        assert!(found.is_ok(), "timed out waiting for {what}; last state: {:?}", self.now());
        self.now()
    }
}

/// The state file, in a subdirectory that the first save creates.
pub(crate) fn state_file(directory: &Path) -> PathBuf {
    directory.join("state/addresses.json")
}

pub(crate) fn start(servers: &[SocketAddr], state_file: &Path) -> Follower {
    let upstreams = servers.iter().map(|server| Upstream::Server(*server)).collect();
    Follower::start(FollowerSettings {
        upstreams,
        own: vec![],
        pool: Pool::default(),
        state_file: state_file.into(),
    })
    .expect("started")
}
