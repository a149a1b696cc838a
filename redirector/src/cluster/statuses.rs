//! The statuses of routes: written where they differ, and not too often.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kube::{
    Api, Client, Resource as _,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use super::{
    resources::{RedirectRoute, RouteStatus},
    summary::{self, Known, Summary},
    verdict::Verdict,
};
use crate::kubernetes::{ApiError, Followed, answer};

/// The most statuses that are written before changes of routes are looked for.
const MAX_STATUSES: usize = 50;
/// Statuses of which only numbers change are written so often in a second, all together: each node
/// that restarts changes those of every route.
const NUMBERS_PER_SECOND: usize = 10;
/// The longest time that they are held back.
const LONGEST_HOLD: usize = 300;

/// What the controller has made of the routes.
pub(super) struct Judged<'j> {
    pub(super) routes: &'j Followed<RedirectRoute>,
    pub(super) verdicts: &'j BTreeMap<String, Verdict>,
    /// The revisions that brought those that are in slices.
    pub(super) revisions: &'j BTreeMap<String, i64>,
}

/// The statuses that this controller has written.
pub(super) struct Statuses {
    routes: Api<RedirectRoute>,
    /// And when, by the UIDs of their routes.
    written: BTreeMap<String, (RouteStatus, Instant)>,
}

impl Statuses {
    pub(super) fn new(client: Client) -> Self {
        Self { routes: Api::all(client), written: BTreeMap::new() }
    }

    /// Writes up to [`MAX_STATUSES`] statuses that differ. Returns after which pause others are
    /// due; none if none is left.
    pub(super) async fn write(
        &mut self,
        judged: &Judged<'_>,
        summary: &Summary<'_>,
        held: &watch::Receiver<bool>,
    ) -> Result<Option<Duration>, ApiError> {
        let Judged { routes, verdicts, revisions } = judged;
        let uid = |route: &RedirectRoute| route.metadata.uid.clone().unwrap_or_default();
        let uids: BTreeSet<_> = routes.objects.values().map(|route| uid(route)).collect();
        self.written.retain(|uid, _| uids.contains(uid));
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let hold = numbers_hold(routes.objects.len());
        let (mut left, mut pause) = (MAX_STATUSES, None);
        for (name, route) in &routes.objects {
            let Some(verdict) = verdicts.get(name) else { continue };
            let uid = uid(route);
            let written = self.written.get(&uid);
            let known = Known {
                name,
                generation: route.metadata.generation.unwrap_or_default(),
                verdict,
                revision: revisions.get(name).copied(),
                before: written.map(|(status, _)| status).or(route.status.as_ref()),
            };
            let status = summary::status(summary, &known, &now);
            if known.before == Some(&status) {
                continue;
            }
            if let Some((before, at)) = written
                && summary::differ_in_numbers(before, &status)
                && at.elapsed() < hold
            {
                let rest = hold.saturating_sub(at.elapsed());
                pause = Some(pause.map_or(rest, |pause: Duration| pause.min(rest)));
                continue;
            }
            if left == 0 || !*held.borrow() {
                return Ok(Some(Duration::ZERO));
            }
            left -= 1;
            if self.write_one(name, &status).await? {
                self.written.insert(uid, (status, Instant::now()));
            }
        }
        Ok(pause)
    }

    /// Writes a status; false if its route is gone.
    async fn write_one(&self, name: &str, status: &RouteStatus) -> Result<bool, ApiError> {
        let patch = Patch::Apply(json!({
            "apiVersion": RedirectRoute::api_version(&()),
            "kind": RedirectRoute::kind(&()),
            "status": status,
        }));
        let params = PatchParams::apply("redirector-controller").force();
        let patched = self.routes.patch_status(name, &params, &patch);
        match answer("to write the status of a route", patched).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// How long a status keeps its numbers when nothing else changes.
fn numbers_hold(routes: usize) -> Duration {
    let seconds = (routes / NUMBERS_PER_SECOND).clamp(1, LONGEST_HOLD);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(1))
}
