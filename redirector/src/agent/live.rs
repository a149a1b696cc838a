//! What is wanted and what serves, and bringing the one to the other: kernel first, then DNS; withdrawn in the other order.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use tracing::{error, info, warn};

use super::desired::{self, Inputs};
use crate::{
    backend::{Follower, Target},
    datapath::{Datapath, DatapathError},
    dns::{Answer, Answers, Publisher, Vip},
    plan,
    route::{RouteSet, SourceName},
    vip::{Leases, Pool},
};

/// Routes on their way from configuration to kernel and DNS.
pub(super) struct Live {
    pub(super) routes: RouteSet,
    pub(super) leases: Leases,
    pub(super) datapath: Datapath,
    pub(super) follower: Arc<Follower>,
    /// None when `dns.listen` is empty: no shim.
    pub(super) publisher: Option<Publisher>,
    pub(super) pool: Pool,
    /// The VIPs that DNS answers now.
    pub(super) published: BTreeMap<SourceName, Vip>,
    /// Whether some clients get real addresses.
    pub(super) real_addresses: bool,
    /// Why the kernel did not take the last plan.
    pub(super) refused: Option<String>,
    /// Sources whose new definition waits for its first addresses, with the number of the change.
    awaiting: BTreeMap<SourceName, u64>,
    replaced: BTreeSet<SourceName>,
    changes: u64,
    /// Whether plans of so many routes were compared that a lot of memory was needed only for that.
    pub(super) much_planned: bool,
}

/// Routes of a plan that are many: some megabytes.
const MANY: usize = 1000;

impl Live {
    pub(super) fn new(
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
            awaiting: BTreeMap::new(),
            replaced: BTreeSet::new(),
            changes: 0,
            much_planned: false,
        }
    }

    /// Follows the destinations of the routes that there are now.
    pub(super) fn follow(&self) {
        let target = |route: &crate::route::Route| Target { destination: route.destination.clone(), resolver: route.resolver };
        self.follower.set_targets(self.routes.iter().map(|entry| (entry.route.source.clone(), target(entry.route))).collect());
    }

    /// Holds `source` back until [`Live::arrived`] is told the number of this change. `replaced`: its destination is another one now.
    pub(super) fn awaits(&mut self, source: &SourceName, replaced: bool) {
        self.changes += 1;
        self.awaiting.insert(source.clone(), self.changes);
        if replaced {
            self.replaced.insert(source.clone());
        }
    }

    /// The number of the change that holds `source` back, if one does.
    pub(super) fn held(&self, source: &SourceName) -> Option<u64> {
        self.awaiting.get(source).copied()
    }

    /// The wait that had this number is over; a later change of the same source goes on holding it back.
    pub(super) fn arrived(&mut self, source: &SourceName, change: u64) {
        if self.awaiting.get(source) == Some(&change) {
            self.awaiting.remove(source);
        }
    }

    /// Brings kernel and DNS to what is wanted, and frees the VIPs that nothing wants any more.
    ///
    /// # Errors
    /// When the kernel refuses. What it took stands, DNS answers no more than that, and the next call tries the rest again.
    pub(super) fn reconcile(&mut self) -> Result<(), DatapathError> {
        let before = self.datapath.plan();
        let resolved = self.follower.current();
        let leases = |source: &SourceName| self.leases.get(source);
        let inputs = Inputs {
            leases: &leases,
            resolved: &resolved,
            kernel: &before,
            awaiting: &|source| self.awaiting.contains_key(source),
            replaced: &self.replaced,
        };
        let wanted = inputs.plan(self.routes.iter().map(|entry| entry.route));
        let changes = plan::diff(&before, &wanted);
        self.much_planned |= before.routes.len().max(wanted.routes.len()) > MANY;

        // DNS first for what goes, so that nobody is given a VIP that is about to lead nowhere.
        drop(before);
        let stays = |index| wanted.routes.contains_key(&index);
        let kept = desired::answers(self.routes.iter().map(|entry| entry.route), &leases, &stays, &self.pool);
        let going: Vec<_> =
            self.published.iter().filter(|(source, vip)| kept.get(*source) != Some(vip)).map(|(source, _)| source.clone()).collect();
        if !going.is_empty() {
            self.published.retain(|source, _| !going.contains(source));
        }
        self.publish();
        drop((kept, wanted));

        let applied = self.datapath.apply(&changes);
        self.replaced.retain(|source| !resolved.get(source).is_some_and(|resolved| desired::is_known(resolved)));

        // Then DNS for what came: only what the kernel has.
        let leases = |source: &SourceName| self.leases.get(source);
        let there = |index| self.datapath.has_route(index);
        self.published = desired::answers(self.routes.iter().map(|entry| entry.route), &leases, &there, &self.pool);
        self.publish();
        self.note(&applied);
        applied?;
        self.free_unwanted();
        Ok(())
    }

    /// Tells DNS about every route: its VIP, or that it is on its way.
    pub(super) fn publish(&self) {
        let Some(publisher) = &self.publisher else { return };
        let answers = || self.routes.iter().map(|entry| (entry.route.source.clone(), self.answer(&entry.route.source)));
        if !publisher.says(answers()) {
            publisher.publish(Answers::new(answers()));
        }
    }

    fn answer(&self, source: &SourceName) -> Answer {
        match self.published.get(source) {
            Some(vip) => Answer::Live { vip: *vip, real: if self.real_addresses { self.eligible(source) } else { Vec::new() } },
            None => Answer::Pending,
        }
    }

    /// The backends that a connect would try now: those that are not set aside, or all when all are.
    fn eligible(&self, source: &SourceName) -> Vec<IpAddr> {
        let backends = self.leases.get(source).map(|index| self.datapath.backends(index));
        match backends.transpose() {
            Ok(backends) => {
                let (good, aside): (Vec<_>, Vec<_>) =
                    backends.unwrap_or_default().into_iter().partition(|backend| backend.set_aside.is_none());
                let chosen = if good.is_empty() { aside } else { good };
                chosen.into_iter().map(|backend| backend.address).collect()
            }
            // What the destination's name said is the next best.
            Err(error) => {
                warn!(%source, "failed to read the state of a route's backends: {}", error_chain(&error));
                self.follower.current().get(source).map(|resolved| resolved.addresses.clone()).unwrap_or_default()
            }
        }
    }

    /// Logs a refusal once, and its end.
    fn note(&mut self, applied: &Result<(), DatapathError>) {
        let refused = applied.as_ref().err().map(|error| error_chain(error));
        if refused != self.refused {
            match &refused {
                Some(error) => error!("the kernel did not take a change of the routes; trying again: {error}"),
                None => info!("the kernel has all routes again"),
            }
            self.refused = refused;
        }
    }

    /// A VIP is free only after DNS and the kernel have let go of it.
    fn free_unwanted(&mut self) {
        let unwanted: Vec<_> =
            self.leases.iter().map(|(source, _)| source).filter(|source| self.routes.get(source).is_none()).cloned().collect();
        if unwanted.is_empty() {
            return;
        }
        self.leases.release_all(&unwanted);
        for source in &unwanted {
            self.replaced.remove(source);
            self.awaiting.remove(source);
        }
    }
}

/// An error with its causes on one line. A cause that the text above it quotes already is not said twice.
pub(crate) fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let cause = cause.to_string();
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}
