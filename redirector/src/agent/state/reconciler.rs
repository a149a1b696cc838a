//! What is wanted and what serves, and bringing the one to the other: kernel first, then DNS;
//! withdrawn in the other order.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use tracing::{error, info, warn};

use crate::{
    agent::state::desired_state::{self, Inputs},
    backend::{Follower, Target},
    datapath::{Datapath, DatapathError},
    dns::{Answer, Publisher, Vip, Zone},
    error::error_chain,
    plan,
    pool::Pool,
    route::{Route, RouteSet, SourceName},
    state::Leases,
};

/// Routes on their way from configuration to kernel and DNS.
pub(crate) struct Live {
    pub(crate) routes: RouteSet,
    pub(crate) leases: Leases,
    pub(crate) datapath: Datapath,
    pub(crate) follower: Arc<Follower>,
    /// None when `dns.listen` is empty: no shim.
    pub(crate) publisher: Option<Publisher>,
    pub(crate) pool: Pool,
    /// The VIPs that DNS answers now.
    pub(crate) published: BTreeMap<SourceName, Vip>,
    /// Whether some clients get real addresses.
    pub(crate) real_addresses: bool,
    /// Why the kernel did not take the last plan.
    pub(crate) refused: Option<String>,
    /// Whether all routes were brought to what is wanted, and none has been refused since.
    brought_all: bool,
    /// Sources whose new definition waits for its first addresses, with the number of the change.
    awaiting: BTreeMap<SourceName, u64>,
    replaced: BTreeSet<SourceName>,
    changes: u64,
    /// Whether plans of so many routes were compared that a lot of memory was needed only for that.
    pub(crate) much_planned: bool,
}

/// Routes of a plan that are many: some megabytes.
const MANY: usize = 1000;
/// Routes that are looked at one by one.
const FEW: usize = 100;

impl Live {
    pub(crate) fn new(
        routes: RouteSet,
        leases: Leases,
        datapath: Datapath,
        follower: Follower,
        publisher: Option<Publisher>,
        pool: Pool,
    ) -> Self {
        Self {
            routes,
            leases,
            datapath,
            follower: Arc::new(follower),
            publisher,
            pool,
            published: BTreeMap::new(),
            real_addresses: false,
            refused: None,
            brought_all: false,
            awaiting: BTreeMap::new(),
            replaced: BTreeSet::new(),
            changes: 0,
            much_planned: false,
        }
    }

    /// Follows the destinations of the routes that there are now.
    pub(crate) fn follow(&self) {
        self.follower.set_targets(
            self.routes
                .iter()
                .map(|entry| (entry.route.source.clone(), target(entry.route)))
                .collect(),
        );
    }

    /// The same where only this source's route has changed.
    pub(crate) fn follow_only(&self, source: &SourceName) {
        self.follower.set_target(source, self.routes.get(source).map(|entry| target(entry.route)));
    }

    /// Holds `source` back until [`Live::arrived`] is told the number of this change. `replaced`:
    /// its destination is another one now.
    pub(crate) fn awaits(&mut self, source: &SourceName, replaced: bool) {
        self.changes += 1;
        self.awaiting.insert(source.clone(), self.changes);
        if replaced {
            self.replaced.insert(source.clone());
        }
    }

    /// The number of the change that holds `source` back, if one does.
    pub(crate) fn held(&self, source: &SourceName) -> Option<u64> {
        self.awaiting.get(source).copied()
    }

    /// Whether a source's route is in the kernel and DNS answers it, as it is defined now.
    pub(crate) fn serves(&self, source: &SourceName) -> bool {
        self.published.contains_key(source) && !self.awaiting.contains_key(source)
    }

    /// The wait that had this number is over; a later change of the same source goes on holding it
    /// back.
    pub(crate) fn arrived(&mut self, source: &SourceName, change: u64) {
        if self.awaiting.get(source) == Some(&change) {
            self.awaiting.remove(source);
        }
    }

    /// Brings kernel and DNS to what is wanted, and frees the VIPs that nothing wants any more.
    ///
    /// # Errors
    /// When the kernel refuses. What it took stands, DNS answers no more than that, and the next
    /// call tries the rest again.
    pub(crate) fn reconcile(&mut self) -> Result<(), DatapathError> {
        let before = self.datapath.plan();
        let wanted = self.wanted(|inputs| inputs.plan(self.routes.iter().map(|entry| entry.route)));
        let changes = plan::diff(&before, &wanted);
        self.much_planned |= before.routes.len().max(wanted.routes.len()) > MANY;

        // DNS first for what goes, so that nobody is given a VIP that is about to lead nowhere.
        drop(before);
        let leases = |source: &SourceName| self.leases.get(source);
        let stays = |index| wanted.routes.contains_key(&index);
        let kept = desired_state::answers(
            self.routes.iter().map(|entry| entry.route),
            &leases,
            &stays,
            &self.pool,
        );
        let going: Vec<_> = self
            .published
            .iter()
            .filter(|(source, vip)| kept.get(*source) != Some(vip))
            .map(|(source, _)| source.clone())
            .collect();
        if !going.is_empty() {
            self.published.retain(|source, _| !going.contains(source));
        }
        self.publish();
        drop((kept, wanted));

        let applied = self.apply(&changes);

        // Then DNS for what came.
        self.publish_what_stands();
        self.brought_all = applied.is_ok();
        self.note(&applied);
        applied?;
        self.free_unwanted();
        Ok(())
    }

    /// As [`Live::reconcile`] where nothing else has changed than what is known of, or wanted for,
    /// these sources: the other routes are not looked at, however many they are.
    ///
    /// # Errors
    /// As [`Live::reconcile`].
    pub(crate) fn reconcile_only(&mut self, sources: &[SourceName]) -> Result<(), DatapathError> {
        // What an earlier agent left, or an earlier call did not bring about, may be anywhere.
        if !self.brought_all || sources.len() > FEW {
            return self.reconcile();
        }
        let changes = self.steps(sources);
        // In the same order as for all: DNS first for what goes, then DNS for what came.
        self.publish_only(sources);
        let applied = self.apply(&changes);
        for source in sources {
            let index = self.leases.get(source).filter(|index| self.datapath.has_route(*index));
            match index
                .filter(|_| self.routes.get(source).is_some())
                .and_then(|index| desired_state::vip(&self.pool, index))
            {
                Some(vip) => drop(self.published.insert(source.clone(), vip)),
                None => drop(self.published.remove(source)),
            }
        }
        self.publish_only(sources);
        self.brought_all = applied.is_ok();
        self.note(&applied);
        applied?;
        self.free_unwanted();
        Ok(())
    }

    /// What the kernel has to take for these sources: what comes before what goes, which is not
    /// published any more.
    fn steps(&mut self, sources: &[SourceName]) -> Vec<plan::Change> {
        let (mut put, mut withdrawn) = (Vec::new(), Vec::new());
        for source in sources {
            let Some(index) = self.leases.get(source) else { continue };
            let wanted = self
                .routes
                .get(source)
                .and_then(|entry| self.wanted(|inputs| inputs.route(entry.route)));
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
        put.append(&mut withdrawn);
        put
    }

    /// What is to be in the kernel, of the routes that `of` takes from everything that it follows
    /// from.
    fn wanted<T>(&self, of: impl FnOnce(&Inputs<'_>) -> T) -> T {
        let resolved = self.follower.current();
        of(&Inputs {
            leases: &|source| self.leases.get(source),
            resolved: &resolved,
            kernel: &|index| self.datapath.planned(index),
            awaiting: &|source| self.awaiting.contains_key(source),
            replaced: &self.replaced,
        })
    }

    fn apply(&mut self, changes: &[plan::Change]) -> Result<(), DatapathError> {
        let applied = self.datapath.apply(changes);
        let resolved = self.follower.current();
        self.replaced.retain(|source| {
            !resolved.get(source).is_some_and(|resolved| desired_state::is_known(resolved))
        });
        applied
    }

    /// Tells DNS what the kernel has, and no more: at the start, what an earlier agent left there.
    pub(crate) fn publish_what_stands(&mut self) {
        let leases = |source: &SourceName| self.leases.get(source);
        let there = |index| self.datapath.has_route(index);
        self.published = desired_state::answers(
            self.routes.iter().map(|entry| entry.route),
            &leases,
            &there,
            &self.pool,
        );
        self.publish();
    }

    /// Tells DNS about every route: its VIP, or that it is on its way.
    pub(crate) fn publish(&self) {
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

    /// As [`Live::publish`], where the answers of other sources are what they were.
    fn publish_only(&self, sources: &[SourceName]) {
        let Some(publisher) = &self.publisher else { return };
        let answer = |source: &SourceName| self.routes.get(source).map(|_| self.answer(source));
        publisher.update(sources.iter().map(|source| (source.clone(), answer(source))));
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

    /// The backends that a connect would try now: those that are not set aside, or all when all
    /// are.
    fn eligible(&self, source: &SourceName) -> Vec<IpAddr> {
        let backends = self.leases.get(source).map(|index| self.datapath.backends(index));
        match backends.transpose() {
            Ok(backends) => {
                let (good, aside): (Vec<_>, Vec<_>) = backends
                    .unwrap_or_default()
                    .into_iter()
                    .partition(|backend| backend.ejected.is_none());
                let chosen = if good.is_empty() { aside } else { good };
                chosen.into_iter().map(|backend| backend.address).collect()
            }
            // What the destination's name said is the next best.
            Err(error) => {
                warn!(%source, "failed to read the state of a route's backends: {}", error_chain(&error));
                self.follower
                    .current()
                    .get(source)
                    .map(|resolved| resolved.addresses.clone())
                    .unwrap_or_default()
            }
        }
    }

    /// Logs a refusal once, and its end.
    fn note(&mut self, applied: &Result<(), DatapathError>) {
        let refused = applied.as_ref().err().map(|error| error_chain(error));
        if refused != self.refused {
            match &refused {
                Some(error) => {
                    error!("the kernel did not take a change of the routes; trying again: {error}")
                }
                None => info!("the kernel has all routes again"),
            }
            self.refused = refused;
        }
    }

    /// A VIP is free only after DNS and the kernel have let go of it.
    fn free_unwanted(&mut self) {
        // Every route has one, so that equal numbers say that no other is left.
        if self.leases.len() == self.routes.len() {
            return;
        }
        let unwanted: Vec<_> = self
            .leases
            .iter()
            .map(|(source, _)| source)
            .filter(|source| self.routes.get(source).is_none())
            .cloned()
            .collect();
        self.leases.release_all(&unwanted);
        for source in &unwanted {
            self.replaced.remove(source);
            self.awaiting.remove(source);
        }
    }
}

fn target(route: &Route) -> Target {
    Target { destination: route.destination.clone(), resolver: route.resolver }
}
