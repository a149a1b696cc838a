//! Tests on maps in the kernel. To make the kernel refuse an element, a map is smaller than the
//! writer assumes.

use std::{
    collections::BTreeMap,
    net::Ipv6Addr,
    sync::atomic::{AtomicBool, Ordering},
};

use proptest::prelude::*;
use redirector_common::packet::flow::FILTER_WORDS;

use super::*;
use crate::{plan::Plan, route::PortPair};

/// The entries of each map, and what the writer assumes of two of them.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    routes: u32,
    slots: u32,
    health: u32,
    stats: u32,
    addresses: u32,
    assumed_slots: u32,
    assumed_ids: u32,
}

impl Sizes {
    /// Maps as large as the writer assumes.
    fn as_assumed(routes: u32, slots: u32, ids: u32) -> Self {
        Self {
            routes,
            slots,
            health: ids,
            stats: ids,
            addresses: ids,
            assumed_slots: slots,
            assumed_ids: ids,
        }
    }

    fn writer(self) -> Writer {
        fn map<V: aya::Pod>(entries: u32) -> Array<MapData, V> {
            Array::create(entries, 0).expect("a map")
        }
        Writer {
            routes: RouteMaps::new(map(self.routes), map(self.slots), map(self.addresses)),
            health: map(self.health * Health::WORDS),
            counters: Counters::new((map(1), map(1), map(1)), (map(self.stats), map(self.stats))),
            filter: BackendFilter::new(map(FILTER_WORDS)).expect("a readable map"),
            slots: SlotAllocator::new(self.assumed_slots),
            ids: IdAllocator::new(self.assumed_ids, []),
            generation: 0,
            blocks: BTreeMap::new(),
        }
    }
}

impl Writer {
    fn plan(&self) -> Plan {
        Plan {
            routes: self.blocks.iter().map(|(&index, block)| (index, block.to_planned())).collect(),
        }
    }

    /// The plan that a later agent would read.
    fn read_back(&self) -> Plan {
        let mut plan = Plan::default();
        for index in 0..self.routes.len() {
            let entry = self.routes.entry(index).expect("an entry");
            if entry.is_present() {
                let block = self.routes.block(entry).expect("slots").expect("a whole block");
                assert_eq!(Some(&block), self.blocks.get(&index));
                plan.routes.insert(index, block.to_planned());
            }
        }
        assert_eq!(plan, self.plan());
        plan
    }

    /// After all routes are removed, all slots and IDs are free.
    fn assert_nothing_is_lost(mut self, sizes: Sizes) {
        let all: Vec<Change> =
            self.blocks.keys().map(|&index| Change::Withdraw { index }).collect();
        self.apply(&all).expect("withdrawn");
        assert_eq!(self.read_back(), Plan::default());
        assert_eq!(self.slots.allocate(sizes.assumed_slots), Some(0), "every slot is free");
        let ids = std::iter::from_fn(|| self.ids.allocate())
            .map(|id| id.0)
            .collect::<std::collections::BTreeSet<_>>();
        assert_eq!(ids, (1..sizes.assumed_ids).collect());
    }
}

/// The plan after applying `changes` one by one.
fn after(changes: &[Change]) -> Plan {
    let mut plan = Plan::default();
    for change in changes {
        match change {
            Change::Put { index, route } => plan.routes.insert(*index, route.clone()),
            Change::Withdraw { index } => plan.routes.remove(index),
        };
    }
    plan
}

fn route(backends: &[IpAddr]) -> PlannedRoute {
    PlannedRoute {
        ports: vec![PortPair { client: 443, destination: 8443 }],
        backends: Some(by_family(backends.to_vec())),
        ..PlannedRoute::default()
    }
}

/// A route with two backends that no other route has.
fn unique_route(index: u32, round: u8) -> PlannedRoute {
    let [_, high, middle, low] = index.to_be_bytes();
    route(&[
        IpAddr::from([10 + 2 * round, high, middle, low]),
        IpAddr::from([11 + 2 * round, high, middle, low]),
    ])
}

fn put_all(routes: u32, round: u8) -> Vec<Change> {
    (0..routes).map(|index| Change::Put { index, route: unique_route(index, round) }).collect()
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        3 => any::<[u8; 4]>().prop_map(IpAddr::from),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
    ]
}

fn change(routes: u32) -> impl Strategy<Value = Change> {
    let put = (
        0..routes,
        prop::collection::btree_set(address(), 0..4),
        prop::collection::vec(address(), 0..2),
    );
    prop_oneof![
        4 => put.prop_map(|(index, backends, sources)| {
            let backends: Vec<IpAddr> = backends.into_iter().collect();
            Change::Put { index, route: PlannedRoute { sources, ..route(&backends) } }
        }),
        1 => (0..routes).prop_map(|index| Change::Withdraw { index }),
    ]
}

const ROUTES: u32 = 12;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whichever map ends too early: the changes before the refused one are applied, the others are
    /// not, and what they allocated is freed.
    #[test]
    fn changes_before_the_one_that_the_kernel_refuses_are_kept(
        changes in prop::collection::vec(change(ROUTES), 1..40),
        short in 0..6_usize,
        at in 1..40_u32,
    ) {
        let mut sizes = Sizes::as_assumed(ROUTES, 400, 120);
        match short {
            0 => sizes.routes = at.min(ROUTES),
            1 => sizes.slots = at * 4,
            2 => sizes.health = at,
            3 => sizes.stats = at,
            4 => sizes.addresses = at,
            _ => {}
        }
        apply_all_or_up_to_the_refused(sizes, &changes, "failed to write ")?;
    }

    #[test]
    fn changes_before_the_one_that_does_not_fit_are_kept(
        changes in prop::collection::vec(change(ROUTES), 1..60),
        slots in 10..80_u32,
        ids in 4..60_u32,
    ) {
        apply_all_or_up_to_the_refused(Sizes::as_assumed(ROUTES, slots, ids), &changes, "")?;
    }
}

fn apply_all_or_up_to_the_refused(
    sizes: Sizes,
    changes: &[Change],
    refusal: &str,
) -> Result<(), TestCaseError> {
    let mut writer = sizes.writer();
    let result = writer.apply(changes);
    let applied_plan = writer.read_back();
    match result {
        Ok(()) => prop_assert_eq!(applied_plan, after(changes)),
        Err(error) => {
            prop_assert!(error.to_string().starts_with(refusal), "{}", error);
            // More than one if a change undoes another: the writer stopped at one of them.
            let mut stops =
                (0..changes.len()).filter(|&count| after(&changes[..count]) == applied_plan);
            // Applied once more from there, it is refused again, and nothing changes.
            let refused_again = stops.any(|count| {
                let mut writer = sizes.writer();
                writer.apply(changes).is_err()
                    && writer.apply(&changes[count..]).is_err()
                    && writer.read_back() == applied_plan
            });
            prop_assert!(refused_again, "{applied_plan:?}: no stop, or not refused again");
        }
    }
    writer.assert_nothing_is_lost(sizes);
    Ok(())
}

#[test]
fn a_full_pool_is_replaced_with_few_free_ids() {
    const MANY: u32 = 5000;
    let sizes = Sizes::as_assumed(MANY, 4 * MANY, 2 * MANY + 8);
    let mut writer = sizes.writer();
    for round in 0..3 {
        writer.apply(&put_all(MANY, round)).expect("written");
        assert_eq!(writer.read_back(), after(&put_all(MANY, round)));
    }
    writer.assert_nothing_is_lost(sizes);
}

#[test]
fn concurrent_readers_see_each_route_old_or_new() {
    const MANY: u32 = 4096;
    let mut writer = Sizes::as_assumed(MANY, 8 * MANY, 2 * MANY + 1024).writer();
    writer.apply(&put_all(MANY, 0)).expect("written");
    // The same maps with other descriptors.
    let maps = writer.routes.reopen();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut reads = 0_u32;
            while !done.load(Ordering::Relaxed) || reads < MANY {
                let index = reads.wrapping_mul(2_654_435_761) % MANY;
                reads += 1;
                // Like the programs: a block that was replaced in between has another generation,
                // and the route is read again.
                let block = (0..4)
                    .find_map(|_| maps.block(maps.entry(index).expect("an entry")).expect("slots"));
                let planned = block.expect("a whole block").to_planned();
                assert!(
                    (0..8).any(|round| planned == unique_route(index, round)),
                    "{planned:?} at {index}"
                );
            }
        });
        for round in 1..8 {
            writer.apply(&put_all(MANY, round)).expect("written");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(writer.read_back(), after(&put_all(MANY, 7)));
}
