//! A plan is the wanted content of the maps in the kernel; [`diff`] returns the changes between two
//! plans. Pure: nothing here reads or writes anything.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::route::{OnNoBackend, PortPair};

/// One route of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedRoute {
    /// The ports that the route lists; empty: every port, unchanged.
    pub ports: Vec<PortPair>,
    /// The destination's addresses, IPv4 ones first. `None` if they are not known yet: then the
    /// backends in the maps stay.
    pub backends: Option<Vec<IpAddr>>,
    /// What happens to a connect that can't be redirected.
    pub on_no_backend: OnNoBackend,
    /// The source addresses of connects, IPv4 ones first; empty: the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// The load balancer's idle time-out, in whole seconds.
    pub idle_timeout: Option<Duration>,
}

/// Sorts the addresses as in the maps: IPv4 ones first, each family in its given order.
pub fn by_family(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}

/// All routes, by VIP index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The routes by the index of their VIP in the pool.
    pub routes: BTreeMap<u32, PlannedRoute>,
}

/// One change from a plan to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds or replaces the route of a VIP.
    Put {
        /// The VIP's index.
        index: u32,
        /// Its route.
        route: PlannedRoute,
    },
    /// Removes the route of a VIP.
    Withdraw {
        /// The VIP's index.
        index: u32,
    },
}

impl Change {
    /// The index of its VIP.
    pub fn index(&self) -> u32 {
        match self {
            Self::Put { index, .. } | Self::Withdraw { index } => *index,
        }
    }
}

/// The steps from `old` to `new`: first the routes that are added or replaced, then those that are
/// removed, so that no step leaves a gap that a later one closes.
pub fn diff(old: &Plan, new: &Plan) -> Vec<Change> {
    let put = new
        .routes
        .iter()
        .filter_map(|(&index, route)| step(index, old.routes.get(&index), Some(route)));
    let removed = old.routes.keys().filter(|index| !new.routes.contains_key(index));
    put.chain(removed.map(|&index| Change::Withdraw { index })).collect()
}

/// The change from the route in the maps to the wanted one; `None` if there is nothing to change.
pub fn step(index: u32, old: Option<&PlannedRoute>, new: Option<&PlannedRoute>) -> Option<Change> {
    match (old, new) {
        (None, None) => None,
        (Some(_), None) => Some(Change::Withdraw { index }),
        (Some(old), Some(new)) if satisfies(old, new) => None,
        (_, Some(new)) => Some(Change::Put { index, route: new.clone() }),
    }
}

/// Whether `old` satisfies `new`. Unknown backends are satisfied by any.
fn satisfies(old: &PlannedRoute, new: &PlannedRoute) -> bool {
    fn settings(route: &PlannedRoute) -> (&[PortPair], OnNoBackend, &[IpAddr], Option<Duration>) {
        (&route.ports, route.on_no_backend, &route.sources, route.idle_timeout)
    }
    settings(old) == settings(new) && (new.backends.is_none() || old.backends == new.backends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(backends: Option<&[[u8; 4]]>) -> PlannedRoute {
        PlannedRoute {
            ports: vec![PortPair { client: 443, destination: 443 }],
            backends: backends
                .map(|list| list.iter().map(|&octets| IpAddr::from(octets)).collect()),
            ..PlannedRoute::default()
        }
    }

    fn plan(routes: &[(u32, PlannedRoute)]) -> Plan {
        Plan { routes: routes.iter().cloned().collect() }
    }

    const ONE: &[[u8; 4]] = &[[203, 0, 113, 7]];
    const TWO: &[[u8; 4]] = &[[203, 0, 113, 7], [203, 0, 113, 8]];

    #[test]
    fn equal_plans_have_no_difference() {
        let one = plan(&[(1, route(Some(ONE))), (2, route(Some(TWO)))]);
        assert_eq!(diff(&one, &one), []);
    }

    #[test]
    fn puts_come_before_withdrawals() {
        let old = plan(&[(1, route(Some(ONE))), (2, route(Some(ONE))), (3, route(Some(ONE)))]);
        let new = plan(&[(2, route(Some(ONE))), (3, route(Some(TWO))), (4, route(Some(ONE)))]);
        assert_eq!(
            diff(&old, &new),
            [
                Change::Put { index: 3, route: route(Some(TWO)) },
                Change::Put { index: 4, route: route(Some(ONE)) },
                Change::Withdraw { index: 1 }
            ]
        );
    }

    #[test]
    fn a_single_diff_equals_its_part_of_the_full_diff() {
        let routes = [
            None,
            Some(route(None)),
            Some(route(Some(&[]))),
            Some(route(Some(ONE))),
            Some(route(Some(TWO))),
        ];
        let single = |route: &Option<PlannedRoute>| Plan {
            routes: route.iter().map(|route| (7, route.clone())).collect(),
        };
        for old in &routes {
            for new in &routes {
                assert_eq!(
                    step(7, old.as_ref(), new.as_ref()).into_iter().collect::<Vec<_>>(),
                    diff(&single(old), &single(new)),
                    "{old:?} {new:?}"
                );
            }
        }
    }

    #[test]
    fn a_change_has_the_index_of_its_vip() {
        for index in [0, 1, 7, u32::MAX] {
            assert_eq!(Change::Put { index, route: route(Some(ONE)) }.index(), index);
            assert_eq!(Change::Withdraw { index }.index(), index);
        }
    }

    #[test]
    fn unknown_backends_change_no_serving_route() {
        let serving = plan(&[(1, route(Some(TWO)))]);
        assert_eq!(diff(&serving, &plan(&[(1, route(None))])), []);
        assert_eq!(
            diff(&Plan::default(), &plan(&[(1, route(None))])),
            [Change::Put { index: 1, route: route(None) }]
        );
    }

    #[test]
    fn another_source_address_or_idle_timeout_is_a_change() {
        let serving = plan(&[(1, route(Some(ONE)))]);
        for changed in [
            PlannedRoute { sources: vec![[198, 51, 100, 1].into()], ..route(Some(ONE)) },
            PlannedRoute { idle_timeout: Some(Duration::from_secs(350)), ..route(Some(ONE)) },
        ] {
            assert_eq!(
                diff(&serving, &plan(&[(1, changed.clone())])),
                [Change::Put { index: 1, route: changed }]
            );
        }
    }

    #[test]
    fn a_known_empty_set_is_a_change() {
        let serving = plan(&[(1, route(Some(TWO)))]);
        assert_eq!(
            diff(&serving, &plan(&[(1, route(Some(&[])))])),
            [Change::Put { index: 1, route: route(Some(&[])) }]
        );
    }
}
