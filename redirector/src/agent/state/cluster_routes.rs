//! The routes of the cluster on this node: the last good ones are on disk, so a start needs no API
//! server; their outcome here is reported.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};
use tracing::{info, warn};

use crate::{
    agent::{pods, state::reconciler::Reconciler},
    atomic_file::FileError,
    backend::Freshness,
    cluster::{
        self, FIRST_SLICE, FailingRoute, MAX_REPORTED, NodeRoutes, RedirectNodeSpec,
        RedirectRouteSliceSpec, Reported, SliceCopy,
    },
    error::error_chain,
    kubernetes::Followed,
    pool::Pool,
    route::{Route, RouteOrigin, SourceName},
};

/// How long a route may take to be live before it is reported as failing.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

type Slices = watch::Receiver<Option<Arc<Followed<RedirectRouteSliceSpec>>>>;

/// The routes of the cluster on this node.
pub(crate) struct ClusterRoutes {
    copy: SliceCopy,
    /// None where they are not wanted.
    slices: Option<Slices>,
    reports: Option<watch::Sender<Reported>>,
    known: NodeRoutes,
    changed_at: Instant,
    /// Why the last ones could not be put in force.
    refused: Option<String>,
    /// Whether the copy on disk is of these routes, or is being written.
    is_saved: bool,
    /// The copy that is being written, beside the event loop: the disk may be slow.
    saves: JoinSet<Result<(), FileError>>,
    /// The routes that were reported as failing: these are not waited for again.
    reported: BTreeSet<String>,
}

impl ClusterRoutes {
    /// The last good routes. Nothing is asked for yet.
    pub(crate) fn open(state_dir: &Path, pool: &Pool) -> Self {
        let copy = SliceCopy::new(state_dir);
        let mut known = NodeRoutes::default();
        if pods::has_cluster_routes() {
            let slices = copy.read().unwrap_or_default();
            let slices: Vec<_> = slices.iter().collect();
            known = NodeRoutes::of(&slices, !slices.is_empty(), pool).unwrap_or_default();
        } else {
            copy.remove();
        }
        Self {
            copy,
            slices: None,
            reports: None,
            known,
            changed_at: Instant::now(),
            refused: None,
            is_saved: true,
            saves: JoinSet::new(),
            reported: BTreeSet::new(),
        }
    }

    /// The routes.
    pub(crate) fn routes(&self) -> Vec<Route> {
        self.known.routes.values().map(|(_, route)| route.clone()).collect()
    }

    /// Records why they are not in force; none if they are.
    pub(crate) fn set_refused(&mut self, reason: Option<String>) {
        if let Some(reason) = &reason {
            warn!("the cluster's routes are not in force: {reason}");
        }
        self.refused = reason;
    }

    /// Begins to follow the slices, and to report.
    pub(crate) fn follow(&mut self) {
        let Some((client, pod)) = pods::cluster_client() else { return };
        let (sender, slices) = watch::channel(None);
        tokio::spawn(cluster::follow_slices(client.clone(), pod.namespace.clone(), sender));
        let (sender, reports) = watch::channel(None);
        tokio::spawn(cluster::report(client, pod, reports));
        self.slices = Some(slices);
        self.reports = Some(sender);
    }

    /// Returns when the slices have changed.
    pub(crate) async fn changed(&mut self) {
        if let Some(slices) = &mut self.slices
            && slices.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// Takes the slices as they are now. Returns whether the routes differ.
    pub(crate) fn take(&mut self, pool: &Pool) -> bool {
        let Some(receiver) = &mut self.slices else { return false };
        let Some(followed) = receiver.borrow_and_update().clone() else { return false };
        let (slices, is_whole) = slices_of(&followed);
        let Some(next) = NodeRoutes::of(&slices, is_whole, pool) else { return false };
        if next == self.known {
            return false;
        }
        let differs = next.routes != self.known.routes || self.refused.is_some();
        info!(revision = next.revision, routes = next.routes.len(), "the cluster's routes changed");
        self.known = next;
        self.changed_at = Instant::now();
        self.is_saved = false;
        differs
    }

    /// Begins to write the copy on disk, if it is of other routes and none is being written.
    /// Retried every two seconds.
    fn save(&mut self) {
        while let Some(Ok(Err(error))) = self.saves.try_join_next() {
            warn!("failed to keep a copy of the cluster's routes: {}", error_chain(&error));
            self.is_saved = false;
        }
        if self.is_saved || self.refused.is_some() || !self.saves.is_empty() {
            return;
        }
        let Some(followed) = self.slices.as_ref().and_then(|slices| slices.borrow().clone()) else {
            return;
        };
        if slices_of(&followed).1 {
            let copy = self.copy.clone();
            self.saves.spawn_blocking(move || copy.write(&slices_of(&followed).0));
            self.is_saved = true;
        }
    }

    /// Waits for the copy that is being written.
    pub(crate) async fn shutdown(&mut self) {
        while self.saves.join_next().await.is_some() {}
    }

    /// Why a route of the cluster is not in force on this node.
    fn failure(&self, reconciler: &Reconciler, source: &SourceName) -> Option<String> {
        if let Some(refused) = &self.refused {
            return Some(refused.clone());
        }
        let entry = reconciler.routes.get(source)?;
        if entry.origin != RouteOrigin::Cluster {
            return Some(format!("the node has a route of its own, from the {}", entry.origin));
        }
        if let Some(resolved) = reconciler.follower().resolved(source)
            && resolved.addresses.is_empty()
        {
            let why = match &resolved.freshness {
                Freshness::Stale { error } | Freshness::Unresolved { error: Some(error) } => error,
                Freshness::Unresolved { error: None } => "no answer yet",
                Freshness::Literal | Freshness::Fresh => "the name has no address",
            };
            return Some(format!("the destination does not resolve: {why}"));
        }
        (!reconciler.is_live(source))
            .then(|| reconciler.kernel_error().unwrap_or("it is not in the kernel yet").to_owned())
    }

    /// Reports the outcome of the routes, unless some are on their way that did not fail before.
    /// Called every two seconds, and after a change.
    pub(crate) fn report(&mut self, reconciler: &Reconciler) {
        self.save();
        if self.reports.is_none() || self.known.revision == 0 {
            return;
        }
        let failing = self.known.routes.iter().filter_map(|(source, (name, _))| {
            let reason = self.failure(reconciler, source)?;
            Some(FailingRoute { route: name.clone(), reason })
        });
        let failing: Vec<_> = failing.collect();
        let is_settled = failing.iter().all(|failing| self.reported.contains(&failing.route));
        if !is_settled && self.changed_at.elapsed() < SETTLE_TIMEOUT {
            return;
        }
        self.reported = failing.iter().map(|failing| failing.route.clone()).collect();
        let mut failing = [self.known.failing.clone(), failing].concat();
        let count = failing.len();
        failing.truncate(MAX_REPORTED);
        let report = RedirectNodeSpec {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: self.known.revision,
            failing: u32::try_from(count).unwrap_or(u32::MAX),
            failing_routes: failing,
        };
        let within = self.known.report_within;
        if let Some(reports) = &self.reports {
            reports.send_if_modified(|sent| {
                let is_new = sent.as_ref().is_none_or(|(before, _)| *before != report);
                *sent = Some((report, within));
                is_new
            });
        }
    }
}

/// The slices, and whether they are all: the first one exists as long as a controller has run.
fn slices_of(followed: &Followed<RedirectRouteSliceSpec>) -> (Vec<&RedirectRouteSliceSpec>, bool) {
    let slices = followed.objects.values().map(Arc::as_ref).collect();
    (slices, followed.objects.contains_key(FIRST_SLICE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::HangingDisk;

    fn slices(revision: i64) -> Option<Arc<Followed<RedirectRouteSliceSpec>>> {
        let slice = RedirectRouteSliceSpec { revision, report_within_seconds: 1, routes: vec![] };
        let objects = [(FIRST_SLICE.to_owned(), Arc::new(slice))].into();
        Some(Arc::new(Followed { objects, error: None }))
    }

    #[test]
    fn a_disk_that_hangs_delays_no_route_of_the_cluster() {
        let folder = tempfile::tempdir().expect("a directory");
        HangingDisk::run(async |disk| {
            let mut routes = ClusterRoutes::open(folder.path(), &Pool::default());
            let (sender, receiver) = watch::channel(None);
            routes.slices = Some(receiver);
            for revision in 1..=2 {
                sender.send_replace(slices(revision));
                routes.take(&Pool::default());
                routes.save();
            }
            assert_eq!(routes.copy.read(), None, "it hangs");
            disk.resume();
            routes.shutdown().await;
            routes.save();
            routes.shutdown().await;
            let copy = routes.copy.read().expect("a copy");
            assert_eq!(copy.iter().map(|slice| slice.revision).collect::<Vec<_>>(), [2]);
        });
    }

    #[tokio::test]
    async fn a_copy_that_fails_is_written_again() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("cluster-routes.json");
        let mut routes = ClusterRoutes::open(folder.path(), &Pool::default());
        let (_sender, receiver) = watch::channel(slices(1));
        routes.slices = Some(receiver);
        routes.is_saved = false;
        std::fs::create_dir_all(path.join("in the way")).expect("a directory");
        routes.save();
        let failed = routes.saves.join_next().await.expect("a write").expect("an outcome");
        assert!(failed.is_err());
        routes.saves.spawn(std::future::ready(failed));
        std::fs::remove_dir_all(&path).expect("removed");
        while !path.is_file() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            routes.save();
        }
        routes.shutdown().await;
        assert_eq!(routes.copy.read().map(|copy| copy.len()), Some(1));
    }
}
