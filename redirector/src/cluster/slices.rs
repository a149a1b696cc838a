//! The slices: accepted routes, split by the hash of their source, so that a change of one route
//! rewrites one object, which stays far below the limit of etcd however many routes there are.

use std::collections::BTreeMap;

use super::resources::{RedirectRouteSliceSpec, SliceRoute};
use crate::route::RawRoute;

/// The most bytes of a slice, as JSON, before the slices are split. etcd refuses 1.5 MiB.
const MAX_BYTES: usize = 64 << 10;
/// The slices are joined when the largest would have fewer bytes than this.
const JOIN_BYTES: usize = MAX_BYTES / 4;
/// The most slices: 64 MiB of routes are more than any pool has.
const MAX_SLICES: u32 = 1024;

/// An accepted route.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Accepted {
    pub(super) name: String,
    pub(super) generation: i64,
    pub(super) route: RawRoute,
}

/// The slices by their indices.
pub(super) type Slices = BTreeMap<u32, RedirectRouteSliceSpec>;

/// A step towards other slices. In this order no route is ever in none of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Write this slice.
    Put(u32, RedirectRouteSliceSpec),
    /// Delete this one: its routes are in others.
    Delete(u32),
}

/// The steps from `before` to slices of `accepted`.
pub(super) fn plan(before: &Slices, accepted: &[Accepted], report_within: u32) -> Vec<Step> {
    let count = count(before, accepted);
    let known: BTreeMap<&str, &SliceRoute> =
        before.values().flat_map(|slice| &slice.routes).map(|r| (r.name.as_str(), r)).collect();
    let mut wanted: BTreeMap<u32, Vec<SliceRoute>> = (0..count).map(|i| (i, vec![])).collect();
    for route in accepted {
        let value = serde_json::to_value(&route.route).expect("texts are JSON");
        let same = known
            .get(route.name.as_str())
            .filter(|known| known.generation == route.generation && known.route == value);
        wanted.entry(index(&route.route.source, count)).or_default().push(SliceRoute {
            name: route.name.clone(),
            generation: route.generation,
            revision: same.map_or(0, |same| same.revision),
            route: value,
        });
    }
    let deleted: Vec<u32> = before.keys().copied().filter(|index| *index >= count).collect();
    let mut revision = before.values().map(|slice| slice.revision).max().unwrap_or_default();
    // New slices first: they take over routes of old ones.
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_by_key(|index| (before.contains_key(index), *index));
    let mut steps = Vec::new();
    for index in order {
        let mut routes = wanted.remove(&index).unwrap_or_default();
        routes.sort_by(|one, other| one.name.cmp(&other.name));
        // The first slice has the last revision when others are deleted: it never goes back.
        let keeps = before.get(&index).is_some_and(|slice| slice.routes == routes);
        if keeps && (deleted.is_empty() || index != 0) {
            continue;
        }
        revision += 1;
        for route in routes.iter_mut().filter(|route| route.revision == 0) {
            route.revision = revision;
        }
        let report_within_seconds = report_within;
        let slice = RedirectRouteSliceSpec { revision, report_within_seconds, routes };
        steps.push(Step::Put(index, slice));
    }
    steps.extend(deleted.into_iter().map(Step::Delete));
    steps
}

/// The slice of a source: the hash is stable across versions.
fn index(source: &str, count: u32) -> u32 {
    crc32fast::hash(source.to_ascii_lowercase().as_bytes()) & (count - 1)
}

/// A power of two: doubling moves half of a slice's routes to one other slice.
fn count(before: &Slices, accepted: &[Accepted]) -> u32 {
    let now = before.keys().last().map_or(1, |last| (last + 1).next_power_of_two());
    let mut count = now.min(MAX_SLICES);
    while count < MAX_SLICES && largest(accepted, count) > MAX_BYTES {
        count *= 2;
    }
    while count > 1 && count <= now && largest(accepted, count / 2) < JOIN_BYTES {
        count /= 2;
    }
    count
}

/// The bytes of the largest slice.
fn largest(accepted: &[Accepted], count: u32) -> usize {
    let mut bytes: BTreeMap<u32, usize> = BTreeMap::new();
    for route in accepted {
        /// What surrounds a route in a slice.
        const REST: usize = 80;
        let json = serde_json::to_string(&route.route).expect("texts are JSON").len();
        *bytes.entry(index(&route.route.source, count)).or_default() +=
            json + route.name.len() + REST;
    }
    bytes.into_values().max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::RawDestination;

    fn accepted(count: usize) -> Vec<Accepted> {
        let route = |n: usize| Accepted {
            name: format!("route-{n:05}"),
            generation: 1,
            route: RawRoute {
                source: format!("host{n}.internal.company.net"),
                destination: RawDestination::One("lb.public.company.net".into()),
                ..RawRoute::default()
            },
        };
        (0..count).map(route).collect()
    }

    /// Carries steps out, and checks that no route is ever missing that was there and stays.
    fn apply(slices: &mut Slices, steps: Vec<Step>, stays: &[Accepted]) -> usize {
        let has = |slices: &Slices, name: &str| {
            slices.values().flat_map(|slice| &slice.routes).any(|route| route.name == name)
        };
        let before: Vec<_> =
            stays.iter().filter(|route| has(slices, &route.name)).map(|r| &r.name).collect();
        let checked: Vec<_> = before.iter().step_by(before.len() / 20 + 1).collect();
        let count = steps.len();
        for step in steps {
            let highest = slices.values().map(|slice| slice.revision).max().unwrap_or_default();
            match step {
                Step::Put(index, slice) => {
                    assert!(slice.revision > highest);
                    slices.insert(index, slice);
                }
                Step::Delete(index) => drop(slices.remove(&index)),
            }
            assert!(checked.iter().all(|name| has(slices, name)));
        }
        count
    }

    #[test]
    fn one_changed_route_rewrites_one_slice() {
        let mut routes = accepted(5000);
        let mut slices = Slices::new();
        let steps = plan(&slices, &routes, 1);
        apply(&mut slices, steps, &routes);
        assert!(slices.len() > 4, "{}", slices.len());
        for slice in slices.values() {
            assert!(serde_json::to_string(slice).unwrap().len() <= 256 << 10);
        }
        assert_eq!(plan(&slices, &routes, 5), []);
        let highest = slices.values().map(|slice| slice.revision).max().unwrap();
        routes[7].generation = 2;
        routes[7].route.destination = RawDestination::One("other.company.net".into());
        let steps = plan(&slices, &routes, 1);
        assert_eq!(apply(&mut slices, steps, &routes), 1);
        let changed: Vec<_> = slices
            .values()
            .flat_map(|slice| &slice.routes)
            .filter(|route| route.revision > highest)
            .collect();
        assert_eq!(changed.len(), 1);
        assert_eq!((changed[0].name.as_str(), changed[0].generation), ("route-00007", 2));
        // Also a removed one, which leaves no revision of its own.
        routes.remove(7);
        let steps = plan(&slices, &routes, 1);
        assert_eq!(apply(&mut slices, steps, &routes), 1);
    }

    #[test]
    fn slices_split_and_join_without_a_missing_route() {
        let mut slices = Slices::new();
        let mut counts = Vec::new();
        for count in [0, 3, 20_000, 1000, 40, 0] {
            let routes = accepted(count);
            let steps = plan(&slices, &routes, 1);
            apply(&mut slices, steps, &routes);
            let names = slices.values().flat_map(|slice| &slice.routes).count();
            assert_eq!(names, count);
            assert_eq!(plan(&slices, &routes, 1), []);
            counts.push(slices.len());
        }
        assert_eq!((counts[0], counts[1], counts[4], counts[5]), (1, 1, 1, 1), "{counts:?}");
        assert!(counts[2] >= 32 && counts[3] < counts[2], "{counts:?}");
    }
}
