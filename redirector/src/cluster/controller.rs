//! The controller: judges routes, writes slices of the accepted ones, and sums up what nodes
//! report. It looks at everything again each time; nothing depends on an event that was missed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    lease::Claim,
    resources::{RedirectNode, RedirectNodeSpec, RedirectRoute, RedirectRouteSlice},
    slices::{self, Accepted, Slices, Step},
    statuses::{Judged, Statuses},
    summary::Summary,
    verdict::{self, Verdict},
};
use crate::{
    error::error_chain,
    kubernetes::{ApiError, Follow, Followed, answer},
    route::RawRoute,
};

/// How long changes of routes are gathered, and reports of nodes.
const GATHER_ROUTES: Duration = Duration::from_millis(50);
const GATHER_REPORTS: Duration = Duration::from_millis(500);
/// How often slices are read again, in case that somebody else has changed one.
const RESYNC: Duration = Duration::from_secs(30);
/// The pause after an error.
const PAUSE: Duration = Duration::from_secs(2);
/// How long the Lease may take to be released.
const RELEASE_LIMIT: Duration = Duration::from_secs(3);
/// Reports of nodes are spread so that about so many arrive in a second.
const REPORTS_PER_SECOND: usize = 100;
const LONGEST_SPREAD: usize = 300;

type Receiver<V> = watch::Receiver<Option<Arc<Followed<V>>>>;

/// A slice as it is in the API.
struct Written {
    version: Option<String>,
    spec: super::resources::RedirectRouteSliceSpec,
}

struct Controller {
    slices: Api<RedirectRouteSlice>,
    /// None if they have to be read.
    written: Option<BTreeMap<u32, Written>>,
    statuses: Statuses,
}

/// Runs a controller until `shutdown`, in the namespace of the agents.
pub async fn run(
    client: Client,
    (namespace, identity): (&str, String),
    shutdown: CancellationToken,
) {
    let routes = Follow {
        what: "routes",
        api: Api::<RedirectRoute>::all(client.clone()),
        fields: None,
        keep: |route: RedirectRoute| (route.name_any(), route),
    };
    let nodes = Follow {
        what: "reports of nodes",
        api: Api::<RedirectNode>::namespaced(client.clone(), namespace),
        fields: None,
        keep: |node: RedirectNode| (node.name_any(), node.spec),
    };
    let (sender, routes_receiver) = watch::channel(None);
    tokio::spawn(routes.run(sender));
    let (sender, nodes_receiver) = watch::channel(None);
    tokio::spawn(nodes.run(sender));
    let (sender, held) = watch::channel(false);
    let claim = tokio::spawn(Claim::new(client.clone(), namespace, identity).run(sender));
    let controller = Controller {
        statuses: Statuses::new(client.clone()),
        slices: Api::namespaced(client, namespace),
        written: None,
    };
    controller.run((routes_receiver, nodes_receiver, held), &shutdown).await;
    if timeout(RELEASE_LIMIT, claim).await.is_err() {
        warn!("the Lease was not released in time: another controller waits until it expires");
    }
}

impl Controller {
    async fn run(
        mut self,
        (mut routes, mut nodes, mut held): (
            Receiver<RedirectRoute>,
            Receiver<RedirectNodeSpec>,
            watch::Receiver<bool>,
        ),
        shutdown: &CancellationToken,
    ) {
        let (mut pause, mut resync) = (RESYNC, Instant::now() + RESYNC);
        loop {
            let mut gather = GATHER_ROUTES;
            tokio::select! {
                () = shutdown.cancelled() => return,
                Ok(()) = routes.changed() => {}
                Ok(()) = nodes.changed() => gather = GATHER_REPORTS,
                Ok(()) = held.changed() => self.written = None,
                () = sleep_until(resync.min(Instant::now() + pause)) => {}
            }
            tokio::select! {
                () = sleep(gather) => {}
                Ok(()) = routes.changed() => sleep(GATHER_ROUTES).await,
            }
            // No lock is held while something is written.
            let known = (routes.borrow_and_update().clone(), nodes.borrow_and_update().clone());
            let ((Some(routes), Some(nodes)), true) = (known, *held.borrow()) else {
                (pause, resync) = (RESYNC, Instant::now() + RESYNC);
                continue;
            };
            if Instant::now() >= resync {
                self.written = None;
            }
            if self.written.is_none() {
                resync = Instant::now() + RESYNC;
            }
            pause = match self.reconcile((&routes, &nodes), &held).await {
                Ok(pause) => pause,
                Err(error) => {
                    warn!("the routes are not up to date; retrying: {}", error_chain(&error));
                    self.written = None;
                    PAUSE
                }
            };
        }
    }

    /// Writes what differs. Returns after which pause something may be left to write.
    async fn reconcile(
        &mut self,
        (routes, nodes): (&Followed<RedirectRoute>, &Followed<RedirectNodeSpec>),
        held: &watch::Receiver<bool>,
    ) -> Result<Duration, ApiError> {
        let verdicts = verdict::judge(routes.objects.values().map(Arc::as_ref));
        let accepted: Vec<Accepted> = verdicts
            .iter()
            .filter_map(|(name, verdict)| {
                let Verdict::Accepted(route) = verdict else { return None };
                let generation = routes.objects.get(name)?.metadata.generation.unwrap_or_default();
                Some(Accepted { name: name.clone(), generation, route: RawRoute::clone(route) })
            })
            .collect();
        let report_within = (nodes.objects.len() / REPORTS_PER_SECOND).clamp(1, LONGEST_SPREAD);
        let report_within = u32::try_from(report_within).unwrap_or(1);
        let before = self.read_slices().await?;
        for step in slices::plan(&before, &accepted, report_within) {
            if !*held.borrow() {
                return Ok(RESYNC);
            }
            self.carry_out(step).await?;
        }
        let slices = self.written.iter().flat_map(|written| written.values());
        let revisions: BTreeMap<String, i64> = slices
            .flat_map(|written| &written.spec.routes)
            .map(|route| (route.name.clone(), route.revision))
            .collect();
        let nodes = nodes.objects.iter().map(|(name, node)| (name.as_str(), node.as_ref()));
        let judged = Judged { routes, verdicts: &verdicts, revisions: &revisions };
        let left = self.statuses.write(&judged, &Summary::new(nodes), held).await?;
        Ok(left.unwrap_or(RESYNC))
    }

    /// The slices as they are now.
    async fn read_slices(&mut self) -> Result<Slices, ApiError> {
        if self.written.is_none() {
            let list = answer("to list slices", self.slices.list(&ListParams::default())).await?;
            let written = list.items.into_iter().filter_map(|slice| {
                let version = slice.metadata.resource_version.clone();
                Some((index(&slice.name_any())?, Written { version, spec: slice.spec }))
            });
            self.written = Some(written.collect());
        }
        let written = self.written.iter().flatten();
        Ok(written.map(|(index, written)| (*index, written.spec.clone())).collect())
    }

    async fn carry_out(&mut self, step: Step) -> Result<(), ApiError> {
        let written = self.written.get_or_insert_default();
        match step {
            Step::Put(index, spec) => {
                let (name, params) = (name(index), PostParams::default());
                let mut slice = RedirectRouteSlice::new(&name, spec);
                let version = written.get(&index).and_then(|written| written.version.clone());
                let answered = if version.is_some() {
                    slice.metadata.resource_version = version;
                    let replaced = self.slices.replace(&name, &params, &slice);
                    answer("to write a slice", replaced).await?
                } else {
                    answer("to create a slice", self.slices.create(&params, &slice)).await?
                };
                let (revision, routes) = (answered.spec.revision, answered.spec.routes.len());
                info!(slice = name, revision, routes, "a slice is written");
                let version = answered.metadata.resource_version;
                written.insert(index, Written { version, spec: slice.spec });
            }
            Step::Delete(index) => {
                let (name, params) = (name(index), DeleteParams::default());
                answer("to delete a slice", self.slices.delete(&name, &params)).await?;
                written.remove(&index);
            }
        }
        Ok(())
    }
}

fn name(index: u32) -> String {
    format!("routes-{index}")
}

fn index(name: &str) -> Option<u32> {
    name.strip_prefix("routes-")?.parse().ok()
}
