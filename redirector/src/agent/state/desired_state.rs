//! What the kernel and DNS are to hold, from what is configured, leased and resolved. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    backend::{Freshness, Resolved},
    dns::Vip,
    plan::{self, Plan, PlannedRoute},
    pool::Pool,
    route::{Route, SourceName},
};

/// Everything that the plan follows from, besides the routes.
pub(crate) struct Inputs<'a> {
    /// The index of each source's VIP.
    pub(crate) leases: &'a dyn Fn(&SourceName) -> Option<u32>,
    /// What is known about each destination.
    pub(crate) resolved: &'a BTreeMap<SourceName, Arc<Resolved>>,
    /// What the kernel holds now for a VIP.
    pub(crate) kernel: &'a dyn Fn(u32) -> Option<PlannedRoute>,
    /// Sources whose new definition waits for its first addresses: until then nothing of theirs
    /// changes.
    pub(crate) awaiting: &'a dyn Fn(&SourceName) -> bool,
    /// Sources whose backends in the kernel are a former destination's.
    pub(crate) replaced: &'a BTreeSet<SourceName>,
}

impl Inputs<'_> {
    /// What the kernel is to hold.
    pub(crate) fn plan<'r>(&self, routes: impl IntoIterator<Item = &'r Route>) -> Plan {
        Plan { routes: routes.into_iter().filter_map(|route| self.route(route)).collect() }
    }

    /// What the kernel is to hold for one route, and where.
    pub(crate) fn route(&self, route: &Route) -> Option<(u32, PlannedRoute)> {
        let index = (self.leases)(&route.source)?;
        let holds = (self.kernel)(index);
        if (self.awaiting)(&route.source) {
            Some((index, holds?))
        } else {
            Some((index, self.planned(route, holds.as_ref())))
        }
    }

    fn planned(&self, route: &Route, holds: Option<&PlannedRoute>) -> PlannedRoute {
        let backends = match self.resolved.get(&route.source) {
            Some(resolved) if is_known(resolved) => {
                Some(plan::by_family(resolved.addresses.clone()))
            }
            // After a restart whose resolver does not answer, what the kernel has is the last good
            // answer. A former destination's is not.
            _ if holds.is_some() && !self.replaced.contains(&route.source) => None,
            _ => Some(Vec::new()),
        };
        PlannedRoute {
            ports: route.ports.pairs().to_vec(),
            backends,
            on_no_backend: route.on_no_backend,
            sources: plan::by_family(route.source_ips.clone()),
            idle_timeout: route.idle_timeout,
        }
    }
}

/// Whether there ever was an answer about the destination; an empty one is one.
pub(crate) fn is_known(resolved: &Resolved) -> bool {
    !matches!(resolved.freshness, Freshness::Unresolved { .. })
}

/// The addresses at an index of the pool.
pub(crate) fn vip(pool: &Pool, index: u32) -> Option<Vip> {
    Some(Vip { v4: pool.ipv4_at(index)?, v6: pool.ipv6_at(index) })
}

/// What DNS is to answer: the VIPs of those sources that the kernel can translate, as `in_kernel`
/// tells of each index.
pub(crate) fn answers<'r>(
    routes: impl IntoIterator<Item = &'r Route>,
    leases: &dyn Fn(&SourceName) -> Option<u32>,
    in_kernel: &dyn Fn(u32) -> bool,
    pool: &Pool,
) -> BTreeMap<SourceName, Vip> {
    let answer = |route: &Route| {
        let index = leases(&route.source).filter(|index| in_kernel(*index))?;
        Some((route.source.clone(), vip(pool, index)?))
    };
    routes.into_iter().filter_map(answer).collect()
}

#[cfg(test)]
#[path = "desired_state_tests.rs"]
mod tests;
