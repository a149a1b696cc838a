//! Which backend a connect gets: uniform over the eligible ones, not the one that this socket tried last.

use super::connect::{Lookup, Tables};
use crate::{
    abi::MAX_BACKENDS,
    addr::{Ip4Be, PortBe},
    backend::{BackendId, Health},
    route::{RouteEntry, Slot},
};

/// A backend for one connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Its number.
    pub id: BackendId,
    /// Its address.
    pub address: Ip4Be,
    /// The port to connect to.
    pub port: PortBe,
    /// It is set aside, but so is every other.
    pub desperate: bool,
}

/// Picks a backend of `entry`, avoiding `last` while another one is eligible. The port is left for the caller to fill in.
///
/// A first draw is taken as it is when it is eligible: with all healthy, that is one random number and one or two reads. Otherwise the
/// eligible ones are counted and one of them is drawn; together the two draws are uniform over the eligible.
#[inline(always)]
pub fn choose(tables: &impl Tables, entry: RouteEntry, last: BackendId) -> Lookup<Choice> {
    let count = u32::from(entry.backends);
    if count == 0 {
        return Lookup::None;
    }
    let first = entry.first.wrapping_add(u32::from(entry.ports));
    let drawn = if count == 1 { 0 } else { below(tables.random(), count) };
    let slot = match tables.slot(first.wrapping_add(drawn)) {
        Some(slot) if slot.generation() == entry.generation => slot,
        _ => return Lookup::Stale,
    };
    let health = tables.health(slot.id());
    if slot.id().0 != last.0 && health.0 == Health::HEALTHY.0 {
        return Lookup::Found(chosen(slot, false));
    }
    choose_carefully(tables, entry, last, slot)
}

/// Enough bits for a count of [`MAX_BACKENDS`].
const COUNT_MASK: u32 = 2 * MAX_BACKENDS as u32 - 1;

/// The second draw, over the eligible ones only. `fallback` is taken when there is none.
#[inline(always)]
fn choose_carefully(tables: &impl Tables, entry: RouteEntry, last: BackendId, fallback: Slot) -> Lookup<Choice> {
    let now = tables.now_ns();
    if fallback.id().0 != last.0 && !tables.health(fallback.id()).is_set_aside(now) {
        return Lookup::Found(chosen(fallback, false));
    }
    let first = entry.first.wrapping_add(u32::from(entry.ports));
    // The verifier must not know that this is 0, or each count makes a state of its own and it gives up on the loop: "BPF program is too
    // large. Processed 1000001 insn" (6.18). Nobody has the number NONE, so its health is 0, but only we know. A count that starts unknown and
    // is masked is the same state in every round: 49 thousand instructions for the whole program.
    let mut eligible = tables.health(BackendId::NONE).0 as u32 & COUNT_MASK;
    let mut pick = Slot::default();
    let mut retry = Slot::default();
    for offset in 0..MAX_BACKENDS as u32 {
        if offset >= u32::from(entry.backends) {
            break;
        }
        let slot = match tables.slot(first.wrapping_add(offset)) {
            Some(slot) if slot.generation() == entry.generation => slot,
            _ => return Lookup::Stale,
        };
        if tables.health(slot.id()).is_set_aside(now) {
            continue;
        }
        if slot.id().0 == last.0 {
            retry = slot;
            continue;
        }
        // Reservoir sampling: the n-th eligible one replaces the pick with probability 1/n, so one pass is enough.
        eligible = (eligible + 1) & COUNT_MASK;
        if below(tables.random(), eligible) == 0 {
            pick = slot;
        }
    }
    if eligible != 0 {
        Lookup::Found(chosen(pick, false))
    } else if retry.tag != 0 {
        Lookup::Found(chosen(retry, false))
    } else {
        Lookup::Found(chosen(fallback, true))
    }
}

#[inline(always)]
const fn chosen(slot: Slot, desperate: bool) -> Choice {
    Choice { id: slot.id(), address: slot.address(), port: PortBe(0), desperate }
}

/// A number below `count` from a uniform one, without division (Lemire 2019); the bias is below 2⁻²⁶ for up to 64.
#[inline(always)]
const fn below(random: u32, count: u32) -> u32 {
    ((random as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
pub(super) mod test_tables {
    //! Tables in memory.
    extern crate std;
    use core::cell::{Cell, RefCell};
    use std::{collections::BTreeMap, vec::Vec};

    use super::*;

    const SLOTS: usize = 256;

    pub(in crate::decide) struct TestTables {
        routes: RefCell<BTreeMap<u32, RouteEntry>>,
        slots: RefCell<Vec<Slot>>,
        pub(super) health: BTreeMap<u32, Health>,
        pub(super) now: u64,
        pub(super) clock_reads: Cell<u32>,
        seed: Cell<u64>,
        flip: Cell<Option<u32>>,
    }

    impl Default for TestTables {
        fn default() -> Self {
            Self {
                routes: RefCell::default(),
                slots: RefCell::new(std::vec![Slot::default(); SLOTS]),
                health: BTreeMap::new(),
                now: 5_000_000_000,
                clock_reads: Cell::new(0),
                seed: Cell::new(0x9e37_79b9_7f4a_7c15),
                flip: Cell::new(None),
            }
        }
    }

    impl TestTables {
        pub(in crate::decide) fn address(id: u32) -> Ip4Be {
            Ip4Be::from_octets([203, 0, 113, id as u8])
        }

        /// One route whose backends have the numbers `ids`, in a block of generation 1 at slot 10.
        pub(in crate::decide) fn with_route(index: u32, ports: &[(u16, u16)], ids: &[u32], policy: u8) -> Self {
            let tables = Self::default();
            tables.put(index, 10, 1, ports, ids, policy);
            tables
        }

        fn put(&self, index: u32, first: u32, generation: u8, ports: &[(u16, u16)], ids: &[u32], policy: u8) {
            let ports_slots = ports.iter().map(|&(client, to)| Slot::port(generation, PortBe::new(client), PortBe::new(to)));
            let backend_slots = ids.iter().map(|&id| Slot::backend(generation, BackendId(id), Self::address(id)));
            for (offset, slot) in ports_slots.chain(backend_slots).enumerate() {
                self.slots.borrow_mut()[first as usize + offset] = slot;
            }
            let entry =
                RouteEntry { first, ports: ports.len() as u8, backends: ids.len() as u8, generation, policy: policy | RouteEntry::PRESENT };
            self.routes.borrow_mut().insert(index, entry);
        }

        /// After the entry is read once, its block is overwritten by a stranger's and the entry points to a new one with backend 9.
        pub(in crate::decide) fn flip_after_first_read(&mut self, index: u32) {
            self.flip.set(Some(index));
        }
    }

    impl Tables for TestTables {
        fn route(&self, index: u32) -> Option<RouteEntry> {
            let entry = self.routes.borrow().get(&index).copied();
            if let Some(flipped) = self.flip.take() {
                self.put(99, 10, 77, &[(443, 443)], &[66], 0);
                self.put(flipped, 100, 2, &[(443, 443)], &[9], 0);
            }
            entry
        }
        fn slot(&self, index: u32) -> Option<Slot> {
            self.slots.borrow().get(index as usize).copied()
        }
        fn health(&self, id: BackendId) -> Health {
            self.health.get(&id.0).copied().unwrap_or_default()
        }
        fn now_ns(&self) -> u64 {
            self.clock_reads.set(self.clock_reads.get() + 1);
            self.now
        }
        fn random(&self) -> u32 {
            // splitmix64
            self.seed.set(self.seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
            let z = self.seed.get();
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z >> 32) as u32
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeMap;

    use super::{test_tables::TestTables, *};

    const VIP: u32 = 1;
    const DRAWS: u32 = 30_000;

    /// How often each backend comes up in [`DRAWS`] draws, and how many of them were desperate.
    fn draw(tables: &TestTables, last: u32) -> (BTreeMap<u32, u32>, u32) {
        let entry = tables.route(VIP).expect("a route");
        let mut counts = BTreeMap::new();
        let mut desperate = 0;
        for _ in 0..DRAWS {
            let Lookup::Found(choice) = choose(tables, entry, BackendId(last)) else { panic!("no backend") };
            assert_eq!(choice.address, TestTables::address(choice.id.0));
            *counts.entry(choice.id.0).or_insert(0) += 1;
            desperate += u32::from(choice.desperate);
        }
        (counts, desperate)
    }

    #[track_caller]
    fn assert_uniform(counts: &BTreeMap<u32, u32>, expected: &[u32]) {
        assert_eq!(counts.keys().copied().collect::<std::vec::Vec<_>>(), expected);
        let fair = DRAWS / expected.len() as u32;
        for (id, count) in counts {
            assert!(count.abs_diff(fair) < fair / 10, "backend {id}: {count} of {DRAWS}, fair is {fair}");
        }
    }

    fn failed(now: u64) -> Health {
        Health::HEALTHY.after_failure(now)
    }

    #[test]
    fn healthy_backends_share_evenly_and_cost_no_clock() {
        let tables = TestTables::with_route(VIP, &[], &[1, 2, 3], 0);
        assert_uniform(&draw(&tables, 0).0, &[1, 2, 3]);
        assert_eq!(tables.clock_reads.get(), 0);
    }

    #[test]
    fn a_backend_that_is_set_aside_gets_nothing_and_its_share_is_spread_evenly() {
        let mut tables = TestTables::with_route(VIP, &[(443, 443)], &[1, 2, 3, 4], 0);
        tables.health.insert(2, failed(tables.now));
        assert_uniform(&draw(&tables, 0).0, &[1, 3, 4]);
    }

    #[test]
    fn a_backend_whose_time_is_over_is_eligible_again() {
        let mut tables = TestTables::with_route(VIP, &[], &[1, 2], 0);
        tables.health.insert(2, failed(tables.now));
        tables.now += Health::FIRST_BACK_OFF_NS;
        assert_uniform(&draw(&tables, 0).0, &[1, 2]);
    }

    #[test]
    fn the_last_backend_of_this_socket_is_avoided_while_there_is_another() {
        let tables = TestTables::with_route(VIP, &[], &[1, 2, 3], 0);
        assert_uniform(&draw(&tables, 3).0, &[1, 2]);
        assert_uniform(&draw(&TestTables::with_route(VIP, &[], &[5], 0), 5).0, &[5]);
    }

    #[test]
    fn the_last_one_beats_one_that_is_set_aside() {
        let mut tables = TestTables::with_route(VIP, &[], &[1, 2], 0);
        tables.health.insert(2, failed(tables.now));
        let (counts, desperate) = draw(&tables, 1);
        assert_uniform(&counts, &[1]);
        assert_eq!(desperate, 0);
    }

    #[test]
    fn when_all_are_set_aside_all_are_tried_and_it_is_said() {
        let mut tables = TestTables::with_route(VIP, &[], &[1, 2], 0);
        for id in [1, 2] {
            tables.health.insert(id, failed(tables.now));
        }
        let (counts, desperate) = draw(&tables, 0);
        assert_uniform(&counts, &[1, 2]);
        assert_eq!(desperate, DRAWS);
    }

    #[test]
    fn sixty_four_backends_are_all_in_reach() {
        let ids: std::vec::Vec<u32> = (1..=64).collect();
        let tables = TestTables::with_route(VIP, &[(1, 1); 16], &ids, 0);
        assert_eq!(draw(&tables, 0).0.len(), 64);
    }
}
