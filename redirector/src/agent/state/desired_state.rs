//! The desired content of kernel and DNS, computed from configuration, leases and resolved
//! addresses. Pure functions.

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

/// What the plan is computed from, besides the routes.
pub(crate) struct Inputs<'a> {
    /// The index of each source's VIP.
    pub(crate) leases: &'a dyn Fn(&SourceName) -> Option<u32>,
    /// The resolution of each destination.
    pub(crate) resolved: &'a dyn Fn(&SourceName) -> Option<Arc<Resolved>>,
    /// The route that the kernel has for a VIP now.
    pub(crate) kernel: &'a dyn Fn(u32) -> Option<PlannedRoute>,
    /// Whether the new definition of a source waits for its first addresses: until then its route
    /// does not change.
    pub(crate) is_held: &'a dyn Fn(&SourceName) -> bool,
    /// Sources whose backends in the kernel belong to a former destination.
    pub(crate) replaced: &'a BTreeSet<SourceName>,
}

impl Inputs<'_> {
    /// The desired routes of the kernel.
    pub(crate) fn plan<'r>(&self, routes: impl IntoIterator<Item = &'r Route>) -> Plan {
        Plan { routes: routes.into_iter().filter_map(|route| self.route(route)).collect() }
    }

    /// The desired state of one route, and its index.
    pub(crate) fn route(&self, route: &Route) -> Option<(u32, PlannedRoute)> {
        let index = (self.leases)(&route.source)?;
        let current = (self.kernel)(index);
        if (self.is_held)(&route.source) {
            Some((index, current?))
        } else {
            Some((index, self.planned(route, current.as_ref())))
        }
    }

    fn planned(&self, route: &Route, current: Option<&PlannedRoute>) -> PlannedRoute {
        let backends = match (self.resolved)(&route.source) {
            Some(resolved) if is_known(&resolved) => {
                Some(plan::by_family(resolved.addresses.clone()))
            }
            // After a restart without an answer of the resolver, the kernel has the last good
            // addresses, unless they belong to a former destination.
            _ if current.is_some() && !self.replaced.contains(&route.source) => None,
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

/// Whether there ever was an answer about the destination, even an empty one.
pub(crate) fn is_known(resolved: &Resolved) -> bool {
    !matches!(resolved.freshness, Freshness::Unresolved { .. })
}

/// The virtual addresses of an index in the pool.
pub(crate) fn vip(pool: &Pool, index: u32) -> Option<Vip> {
    Some(Vip { v4: pool.ipv4_at(index)?, v6: pool.ipv6_at(index) })
}

/// The desired answers of DNS: the VIPs of those sources whose index satisfies `in_kernel`.
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
