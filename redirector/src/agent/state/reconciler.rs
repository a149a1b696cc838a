//! Brings kernel and DNS to the desired state. Routes are added to the kernel before DNS, and
//! removed from DNS before the kernel. DNS is the names that the kernel answers, and the shim.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use tracing::{debug, error, info, warn};

use crate::{
    agent::state::{
        desired_state::{self, Inputs},
        held_routes::HeldRoutes,
    },
    backend::{Follower, Target},
    datapath::{Datapath, DatapathError, NameChange, PublishedName},
    dns::{Answer, Publisher, Vip, Zone},
    error::error_chain,
    plan::{self, Plan},
    pool::Pool,
    route::{Edit, Route, RouteSet, SourceName},
    state::Leases,
};

/// Plans with more routes than this take megabytes, which are returned to the system afterwards.
const LARGE_PLAN: usize = 1000;
/// Up to this many changed routes are reconciled one by one; more, as a whole plan.
pub(crate) const MAX_SINGLE: usize = 500;

/// The routes on their way from configuration to kernel and DNS.
pub(crate) struct Reconciler {
    pub(crate) routes: RouteSet,
    pub(crate) leases: Leases,
    pub(crate) datapath: Datapath,
    pub(crate) held: HeldRoutes,
    follower: Arc<Follower>,
    /// None when `dns.listen` is empty: no shim.
    publisher: Option<Publisher>,
    pool: Pool,
    /// Whether some clients get real addresses.
    real_addresses: bool,
    /// The VIPs that DNS answers now.
    published: BTreeMap<SourceName, Vip>,
    /// Why the kernel rejected a change of the names that it answers.
    names_error: Option<String>,
    /// Why the kernel rejected the last update.
    kernel_error: Option<String>,
    /// Whether the last reconciliation of all routes succeeded, and every one since.
    in_sync: bool,
    used_large_plan: bool,
}

/// The parts that a [`Reconciler`] is made of.
pub(crate) struct ReconcilerParts {
    pub(crate) routes: RouteSet,
    pub(crate) leases: Leases,
    pub(crate) datapath: Datapath,
    pub(crate) follower: Follower,
    pub(crate) publisher: Option<Publisher>,
    pub(crate) pool: Pool,
    pub(crate) real_addresses: bool,
}

impl Reconciler {
    pub(crate) fn new(parts: ReconcilerParts) -> Self {
        Self {
            routes: parts.routes,
            leases: parts.leases,
            datapath: parts.datapath,
            held: HeldRoutes::default(),
            follower: Arc::new(parts.follower),
            publisher: parts.publisher,
            pool: parts.pool,
            real_addresses: parts.real_addresses,
            published: BTreeMap::new(),
            names_error: None,
            kernel_error: None,
            in_sync: false,
            used_large_plan: false,
        }
    }

    /// The resolver of the destinations.
    pub(crate) fn follower(&self) -> &Arc<Follower> {
        &self.follower
    }

    /// Ends with the follower, which has to be shut down.
    pub(crate) fn into_follower(self) -> Option<Follower> {
        Arc::into_inner(self.follower)
    }

    /// The DNS shim, if there is one.
    pub(crate) fn publisher(&self) -> Option<&Publisher> {
        self.publisher.as_ref()
    }

    /// The pool of virtual addresses.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Why the kernel rejected the last update.
    pub(crate) fn kernel_error(&self) -> Option<&str> {
        self.kernel_error.as_deref()
    }

    /// How many sources DNS answers.
    pub(crate) fn published_count(&self) -> usize {
        self.published.len()
    }

    /// How many routes DNS does not answer yet, and the sources of up to `limit` of them.
    pub(crate) fn unpublished(&self, limit: usize) -> (usize, Vec<&SourceName>) {
        // Only sources with a route are published.
        let count = self.routes.len().saturating_sub(self.published.len());
        // A full pool is not searched every second if none is missing.
        let limit = limit.min(count);
        let sources = self.routes.iter().map(|entry| &entry.route.source);
        let missing = sources.filter(|source| !self.published.contains_key(*source)).take(limit);
        (count, missing.collect())
    }

    /// Whether a source's route is in the kernel and in DNS as it is defined now.
    pub(crate) fn is_live(&self, source: &SourceName) -> bool {
        self.published.contains_key(source) && !self.held.contains(source)
    }

    /// Whether there ever was an answer about a source's destination.
    pub(crate) fn is_resolved(&self, source: &SourceName) -> bool {
        self.follower.resolved(source).is_some_and(|resolved| desired_state::is_known(&resolved))
    }

    /// Whether a large plan was compared, or a part of one put in force, since the last call.
    pub(crate) fn take_used_large_plan(&mut self) -> bool {
        std::mem::take(&mut self.used_large_plan)
    }

    /// Resolves the destinations of the current routes.
    pub(crate) fn follow(&self) {
        let target = |route: &Route| (route.source.clone(), target(route));
        self.follower.set_targets(self.routes.iter().map(|entry| target(entry.route)).collect());
    }

    /// Replaces all routes. Returns the former ones.
    pub(crate) fn replace_routes(&mut self, next: RouteSet) -> RouteSet {
        let before = std::mem::replace(&mut self.routes, next);
        self.published.retain(|source, _| self.routes.get(source).is_some());
        self.follow();
        before
    }

    /// Changes one route. Returns the former one.
    pub(crate) fn apply_edit(&mut self, edit: Edit) -> Option<Route> {
        let source = edit.source.clone();
        let before = self.routes.get(&source).map(|entry| entry.route.clone());
        self.routes.apply(edit);
        let target = self.routes.get(&source).map(|entry| target(entry.route));
        self.follower.set_target(&source, target);
        before
    }

    /// Holds back a route whose destination is not known yet. `before` is the route that served
    /// its source until now.
    pub(crate) fn hold_unresolved(&mut self, source: &SourceName, before: Option<&Route>) {
        let Some(route) = self.routes.get(source).map(|entry| entry.route) else { return };
        if self.is_resolved(source) {
            return;
        }
        let replaced = before.is_some_and(|old| {
            old.destination != route.destination || old.resolver != route.resolver
        });
        self.held.hold(source, replaced);
    }

    /// Brings kernel and DNS to the desired state, and frees virtual addresses that no route uses.
    ///
    /// # Errors
    /// When the kernel rejects an update. DNS then answers only what the kernel accepted, and the
    /// next call tries the rest again.
    pub(crate) fn reconcile(&mut self) -> Result<(), DatapathError> {
        let before = self.datapath.plan();
        let wanted = self.with_inputs(|inputs| inputs.plan(routes_of(&self.routes)));
        let changes = plan::diff(&before, &wanted);
        self.used_large_plan |= before.routes.len().max(wanted.routes.len()) > LARGE_PLAN;
        drop(before);

        // DNS first for routes that go, so that no client gets a VIP that is about to be removed.
        self.unpublish_unwanted(&wanted);
        drop(wanted);
        let applied = self.apply(&self.possible(changes));

        // Then DNS for routes that came.
        self.publish_installed();
        self.conclude(applied)
    }

    /// As [`Reconciler::reconcile`], when only these sources have changed: the cost does not
    /// depend on the number of other routes.
    ///
    /// # Errors
    /// As [`Reconciler::reconcile`].
    pub(crate) fn reconcile_only(&mut self, sources: &[SourceName]) -> Result<(), DatapathError> {
        // Leftovers of an earlier agent, or of a failed call, may concern any route.
        if !self.in_sync || sources.len() > MAX_SINGLE {
            return self.reconcile();
        }
        // A part of a large change.
        self.used_large_plan |= sources.len() == MAX_SINGLE;
        let changes = self.changes_of(sources);
        // The same order as for all routes.
        self.publish_only(sources);
        let applied = self.apply(&self.possible(changes));
        for source in sources {
            match self.installed_vip(source) {
                Some(vip) => drop(self.published.insert(source.clone(), vip)),
                None => drop(self.published.remove(source)),
            }
        }
        self.publish_only(sources);
        self.conclude(applied)
    }

    /// A route stays while the kernel may still answer its name.
    fn possible(&self, mut changes: Vec<plan::Change>) -> Vec<plan::Change> {
        if self.names_error.is_some() {
            changes.retain(|change| !matches!(change, plan::Change::Withdraw { .. }));
        }
        changes
    }

    /// Publishes what the kernel contains: at the start, what an earlier agent left there.
    pub(crate) fn publish_installed(&mut self) {
        self.published = self.answers_for(|index| self.datapath.has_route(index));
        self.publish();
    }

    /// As [`Reconciler::publish_installed`], by the shim only, before it serves: what an earlier
    /// agent answered stays answered.
    pub(crate) fn publish_installed_to_shim(&mut self) {
        if !self.datapath.lacks_routes() {
            self.published = self.answers_for(|index| self.datapath.has_route(index));
        }
        self.publish_to_shim();
    }

    /// Publishes every route to DNS, in the kernel and by the shim: its VIP, or that it is pending.
    pub(crate) fn publish(&mut self) {
        self.publish_to_shim();
        self.publish_to_kernel();
    }

    /// As [`Reconciler::publish`], by the shim only: before [`Reconciler::publish_installed`], when
    /// the kernel still answers what an earlier agent published.
    pub(crate) fn publish_to_shim(&self) {
        let Some(publisher) = &self.publisher else { return };
        let answers = || {
            self.routes
                .iter()
                .map(|entry| (entry.route.source.clone(), self.answer(&entry.route.source)))
        };
        if !publisher.is_current(answers()) {
            publisher.publish(Zone::new(answers()));
        }
    }

    /// As [`Reconciler::publish`], in the kernel only: names that go before names that come, since
    /// two of them may have had one VIP.
    fn publish_to_kernel(&mut self) {
        // What an older version's programs serve is not known yet.
        if self.datapath.lacks_routes() {
            return;
        }
        let present = self.datapath.names();
        let gone = present.keys().filter(|source| self.name(source).is_none());
        let mut changes: Vec<_> =
            gone.map(|source| NameChange::Remove { source: source.clone() }).collect();
        for entry in self.routes.iter() {
            let source = &entry.route.source;
            if let Some(name) = self.name(source).filter(|name| present.get(source) != Some(name)) {
                changes.push(NameChange::Put { source: source.clone(), name });
            }
        }
        self.change_names(&changes);
    }

    fn change_names(&mut self, changes: &[NameChange]) {
        if changes.is_empty() {
            return;
        }
        match self.datapath.publish_names(changes) {
            Ok(()) => debug!(?changes, "wrote names"),
            Err(error) => {
                let error = error_chain(&error);
                warn!("the kernel rejected a change of the names that it answers: {error}");
                self.names_error.get_or_insert(error);
            }
        }
    }

    /// What the kernel should answer for a source; none if it has no route.
    fn name(&self, source: &SourceName) -> Option<PublishedName> {
        self.routes.get(source)?;
        let index = self.leases.get(source)?;
        let is_live = self.published.contains_key(source);
        Some(if is_live { PublishedName::live(index) } else { PublishedName::pending(index) })
    }

    /// Publishes the health of backends to clients that get real addresses.
    pub(crate) fn publish_health(&self) {
        if self.real_addresses {
            self.publish_to_shim();
        }
    }

    /// Removes from DNS what `wanted` does not contain.
    fn unpublish_unwanted(&mut self, wanted: &Plan) {
        let kept = self.answers_for(|index| wanted.routes.contains_key(&index));
        self.published.retain(|source, vip| kept.get(source) == Some(vip));
        self.publish();
    }

    /// The VIPs of the routes whose index satisfies `filter`.
    fn answers_for(&self, filter: impl Fn(u32) -> bool) -> BTreeMap<SourceName, Vip> {
        let leases = |source: &SourceName| self.leases.get(source);
        desired_state::answers(routes_of(&self.routes), &leases, &filter, &self.pool)
    }

    /// The kernel changes of these sources: additions before removals, which are not published any
    /// more.
    fn changes_of(&mut self, sources: &[SourceName]) -> Vec<plan::Change> {
        let (mut put, mut withdrawn) = (Vec::new(), Vec::new());
        for source in sources {
            let Some(index) = self.leases.get(source) else { continue };
            let wanted = self
                .routes
                .get(source)
                .and_then(|entry| self.with_inputs(|inputs| inputs.route(entry.route)));
            if wanted.is_none() {
                self.published.remove(source);
            }
            let step = plan::step(
                index,
                self.datapath.planned(index).as_ref(),
                wanted.as_ref().map(|(_, route)| route),
            );
            let list = if wanted.is_some() { &mut put } else { &mut withdrawn };
            list.extend(step);
        }
        // The kernel takes changes of ascending indices in few calls.
        put.sort_by_key(plan::Change::index);
        withdrawn.sort_by_key(plan::Change::index);
        put.append(&mut withdrawn);
        put
    }

    /// Calls `compute` with everything that the desired state follows from.
    fn with_inputs<T>(&self, compute: impl FnOnce(&Inputs<'_>) -> T) -> T {
        compute(&Inputs {
            leases: &|source| self.leases.get(source),
            resolved: &|source| self.follower.resolved(source),
            kernel: &|index| self.datapath.planned(index),
            is_held: &|source| self.held.contains(source),
            replaced: self.held.replaced(),
        })
    }

    fn apply(&mut self, changes: &[plan::Change]) -> Result<(), DatapathError> {
        let applied = self.datapath.apply(changes);
        if applied.is_ok() && !changes.is_empty() {
            debug!(?changes, "wrote routes");
        }
        let follower = &self.follower;
        self.held.retain_replaced(|source| {
            !follower.resolved(source).is_some_and(|resolved| desired_state::is_known(&resolved))
        });
        applied
    }

    /// The VIP of a route that the kernel contains.
    fn installed_vip(&self, source: &SourceName) -> Option<Vip> {
        self.routes.get(source)?;
        let index = self.leases.get(source).filter(|index| self.datapath.has_route(*index))?;
        desired_state::vip(&self.pool, index)
    }

    /// As [`Reconciler::publish`], when only the answers of these sources have changed.
    fn publish_only(&mut self, sources: &[SourceName]) {
        if let Some(publisher) = &self.publisher {
            let answer = |source: &SourceName| self.routes.get(source).map(|_| self.answer(source));
            publisher.update(sources.iter().map(|source| (source.clone(), answer(source))));
        }
        if self.datapath.lacks_routes() {
            return;
        }
        let present = self.datapath.names();
        let changed =
            sources.iter().filter(|source| present.get(source) != self.name(source).as_ref());
        let change = |source: &SourceName| match self.name(source) {
            Some(name) => NameChange::Put { source: source.clone(), name },
            None => NameChange::Remove { source: source.clone() },
        };
        let mut changes: Vec<_> = changed.map(change).collect();
        changes.sort_by_key(|change| matches!(change, NameChange::Put { .. }));
        self.change_names(&changes);
    }

    fn answer(&self, source: &SourceName) -> Answer {
        match self.published.get(source) {
            Some(vip) => Answer::Live {
                vip: *vip,
                real: if self.real_addresses { self.eligible(source) } else { Vec::new() },
            },
            None => Answer::Pending,
        }
    }

    /// The backends that a connect would use now: those that are not ejected, or all when all are.
    fn eligible(&self, source: &SourceName) -> Vec<IpAddr> {
        let backends = self.leases.get(source).map(|index| self.datapath.backends(index));
        match backends.transpose() {
            Ok(backends) => {
                let (eligible, ejected): (Vec<_>, Vec<_>) = backends
                    .unwrap_or_default()
                    .into_iter()
                    .partition(|backend| backend.ejected().is_none());
                let chosen = if eligible.is_empty() { ejected } else { eligible };
                chosen.into_iter().map(|backend| backend.address).collect()
            }
            Err(error) => {
                warn!(%source, "failed to read the state of a route's backends, falling back to \
                    its resolved addresses: {}", error_chain(&error));
                let resolved = self.follower.resolved(source);
                resolved.map(|known| known.addresses.clone()).unwrap_or_default()
            }
        }
    }

    fn conclude(&mut self, applied: Result<(), DatapathError>) -> Result<(), DatapathError> {
        self.in_sync = applied.is_ok() && self.names_error.is_none();
        let error = applied.as_ref().err().map(|error| error_chain(error));
        let names_error = self.names_error.take();
        self.record_kernel_error(error.or(names_error));
        applied?;
        // A name that is still answered keeps its virtual address.
        if self.in_sync {
            self.free_unused_leases();
        }
        Ok(())
    }

    /// Logs a rejected update once, and the recovery from it.
    fn record_kernel_error(&mut self, error: Option<String>) {
        if error == self.kernel_error {
            return;
        }
        match &error {
            Some(error) => error!("the kernel rejected a route update; retrying: {error}"),
            None => info!("the kernel has all routes again"),
        }
        self.kernel_error = error;
    }

    /// A VIP is free only after DNS and the kernel have released it.
    fn free_unused_leases(&mut self) {
        // Every route has a lease, so equal counts mean that no other lease is left.
        if self.leases.len() == self.routes.len() {
            return;
        }
        let unused: Vec<_> = self
            .leases
            .iter()
            .filter(|(source, index)| {
                self.routes.get(source).is_none() && !self.datapath.has_route(*index)
            })
            .map(|(source, _)| source.clone())
            .collect();
        self.leases.release_all(&unused);
        unused.iter().for_each(|source| self.held.forget(source));
    }
}

fn routes_of(routes: &RouteSet) -> impl Iterator<Item = &Route> {
    routes.iter().map(|entry| entry.route)
}

fn target(route: &Route) -> Target {
    Target { destination: route.destination.clone(), resolver: route.resolver }
}
