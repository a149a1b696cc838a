//! What the kernel's tables are to hold, and the difference between two such plans. Pure: nothing
//! here reads or writes anything.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::route::{OnNoBackend, PortPair};

/// One route as the tables are to hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedRoute {
    /// The ports that the route lists; empty: every port, unchanged.
    pub ports: Vec<PortPair>,
    /// The destination's addresses, IPv4 ones first. `None`: not known yet, so whatever the tables
    /// hold for this VIP stays.
    pub backends: Option<Vec<IpAddr>>,
    /// What a connect gets that can't be redirected.
    pub on_no_backend: OnNoBackend,
    /// Addresses to connect from, IPv4 ones first; empty: the kernel's choice.
    pub sources: Vec<IpAddr>,
    /// The load balancer's idle time-out, in whole seconds.
    pub idle_timeout: Option<Duration>,
}

/// IPv4 addresses first, each family in the order that it has: as the tables keep them.
pub fn by_family(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}

/// Everything that the tables are to hold, by VIP index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The routes by the index of their VIP in the pool.
    pub routes: BTreeMap<u32, PlannedRoute>,
}

/// One step from a plan to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The VIP gets this route, in the place of any that it has.
    Put {
        /// The VIP's index.
        index: u32,
        /// Its route.
        route: PlannedRoute,
    },
    /// The VIP has no route any more.
    Withdraw {
        /// The VIP's index.
        index: u32,
    },
}

impl Change {
    /// The index of the VIP that it is about.
    pub fn index(&self) -> u32 {
        match self {
            Self::Put { index, .. } | Self::Withdraw { index } => *index,
        }
    }
}

/// The steps from `old` to `new`: routes that appear or differ first, then those that go, so that
/// no step leaves a gap that the next one closes.
pub fn diff(old: &Plan, new: &Plan) -> Vec<Change> {
    let put = new
        .routes
        .iter()
        .filter_map(|(&index, route)| step(index, old.routes.get(&index), Some(route)));
    let gone = old.routes.keys().filter(|index| !new.routes.contains_key(index));
    put.chain(gone.map(|&index| Change::Withdraw { index })).collect()
}

/// The step from what the tables hold for a VIP to what they are to hold; nothing when they hold it
/// already.
pub fn step(index: u32, old: Option<&PlannedRoute>, new: Option<&PlannedRoute>) -> Option<Change> {
    match (old, new) {
        (None, None) => None,
        (Some(_), None) => Some(Change::Withdraw { index }),
        (Some(old), Some(new)) if stands_for(old, new) => None,
        (_, Some(new)) => Some(Change::Put { index, route: new.clone() }),
    }
}

/// Whether `old` in the tables is all that `new` asks for. Backends that are not known yet ask for
/// nothing.
fn stands_for(old: &PlannedRoute, new: &PlannedRoute) -> bool {
    fn rest(of: &PlannedRoute) -> (&[PortPair], OnNoBackend, &[IpAddr], Option<Duration>) {
        (&of.ports, of.on_no_backend, &of.sources, of.idle_timeout)
    }
    rest(old) == rest(new) && (new.backends.is_none() || old.backends == new.backends)
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
    fn what_is_new_or_different_is_put_and_what_is_gone_is_withdrawn_last() {
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
    fn a_route_by_itself_takes_the_step_that_it_takes_among_all() {
        let routes = [
            None,
            Some(route(None)),
            Some(route(Some(&[]))),
            Some(route(Some(ONE))),
            Some(route(Some(TWO))),
        ];
        let of = |route: &Option<PlannedRoute>| Plan {
            routes: route.iter().map(|route| (7, route.clone())).collect(),
        };
        for old in &routes {
            for new in &routes {
                assert_eq!(
                    step(7, old.as_ref(), new.as_ref()).into_iter().collect::<Vec<_>>(),
                    diff(&of(old), &of(new)),
                    "{old:?} {new:?}"
                );
            }
        }
    }

    #[test]
    fn backends_that_are_not_known_yet_change_nothing_that_serves() {
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
