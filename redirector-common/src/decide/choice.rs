//! Which backend a connect gets: uniform over the eligible ones of the right family, not the one that this socket tried last.

use super::connect::{Lookup, Tables};
use crate::{
    abi::MAX_BACKENDS,
    addr::{Ip6Be, PortBe},
    backend::{BackendId, Health},
    route::{RouteEntry, Slot},
};

/// Which addresses a connect can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// The client asked for an IPv6 address (not an IPv4-mapped one), so IPv6 backends come first.
    pub six_first: bool,
    /// The socket is one for both families: a route that has none of the family asked for serves it with the other. An `AF_INET` socket is not,
    /// nor is one that is bound to an address.
    pub both: bool,
}

impl Families {
    /// An `AF_INET` socket.
    pub const ONLY4: Self = Self { six_first: false, both: false };
}

/// A backend for one connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Its number.
    pub id: BackendId,
    /// Its address; an IPv4 one in its mapped form.
    pub address: Ip6Be,
    /// The port to connect to.
    pub port: PortBe,
    /// It is set aside, but so is every other.
    pub desperate: bool,
    /// The route has another one that is eligible.
    pub another: bool,
    /// The load balancer's idle time-out in seconds; 0: none is known.
    pub idle_seconds: u16,
    /// The address to connect from, of the same family; `::` leaves it to the kernel.
    pub source: Ip6Be,
}

/// The backends of one family in a block.
#[derive(Clone, Copy)]
struct Candidates {
    first: u32,
    count: u32,
    generation: u8,
}

impl Candidates {
    #[inline(always)]
    fn new(entry: RouteEntry, families: Families) -> Self {
        let (four, six) = (u32::from(entry.backends4), u32::from(entry.backends6()));
        let use6 = if families.six_first { !(families.both && six == 0) } else { families.both && four == 0 };
        let first = entry.first_backend();
        if use6 {
            Self { first: first.wrapping_add(four), count: six, generation: entry.generation }
        } else {
            Self { first, count: four, generation: entry.generation }
        }
    }

    /// One of them; nothing when the block was replaced meanwhile.
    #[inline(always)]
    fn get(self, tables: &impl Tables, offset: u32) -> Option<Slot> {
        tables.slot(self.first.wrapping_add(offset)).filter(|slot| slot.generation() == self.generation)
    }
}

/// Picks a backend of `entry`, avoiding `last` while another one is eligible. Port, idle time-out and source are left for the caller to fill in.
///
/// A first draw is taken as it is when it is eligible: with all healthy, that is one random number and a look at its neighbour, which tells
/// that there is another. Otherwise the eligible ones are counted and, if the first draw was none, one of them is drawn; together the two draws are
/// uniform over the eligible.
#[inline(always)]
pub fn choose(tables: &impl Tables, entry: RouteEntry, families: Families, last: BackendId) -> Lookup<Choice> {
    let candidates = Candidates::new(entry, families);
    let count = candidates.count;
    if count == 0 {
        return Lookup::None;
    }
    let drawn = if count == 1 { 0 } else { below(tables.random(), count) };
    let Some(slot) = candidates.get(tables, drawn) else { return Lookup::Stale };
    let is_fine = slot.id().0 != last.0 && tables.health(slot.id()).0 == Health::HEALTHY.0;
    if is_fine {
        if count == 1 {
            return Lookup::Found(chosen(address(tables, families, slot), slot.id(), false, false));
        }
        let next = if drawn + 1 == count { 0 } else { drawn + 1 };
        let Some(neighbour) = candidates.get(tables, next) else { return Lookup::Stale };
        if tables.health(neighbour.id()).0 == Health::HEALTHY.0 {
            return Lookup::Found(chosen(address(tables, families, slot), slot.id(), false, true));
        }
    }
    survey(tables, candidates, families, (last, slot))
}

/// Enough bits for a count of [`MAX_BACKENDS`].
const COUNT_MASK: u32 = 2 * MAX_BACKENDS as u32 - 1;

/// The second draw, over the eligible ones only. `drawn` stands if it is one of them, and is taken if there is none.
#[inline(always)]
fn survey(tables: &impl Tables, candidates: Candidates, families: Families, (last, drawn): (BackendId, Slot)) -> Lookup<Choice> {
    let now = tables.now_ns();
    // The verifier must not know that this is 0, or each count makes a state of its own and it gives up on the loop: "BPF program is too
    // large. Processed 1000001 insn" (6.18). Nobody has the number NONE, so its health is 0, but only we know. A count that starts unknown and
    // is masked is the same state in every round.
    let mut eligible = tables.health(BackendId::NONE).0 as u32 & COUNT_MASK;
    let mut pick = Slot::default();
    let mut retry = Slot::default();
    for offset in 0..MAX_BACKENDS as u32 {
        if offset >= candidates.count {
            break;
        }
        let Some(slot) = candidates.get(tables, offset) else { return Lookup::Stale };
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
    let another = eligible > 1 || eligible == 1 && retry.tag != 0;
    let stands = drawn.id().0 != last.0 && !tables.health(drawn.id()).is_set_aside(now);
    let slot = if stands {
        drawn
    } else if eligible != 0 {
        pick
    } else if retry.tag != 0 {
        retry
    } else {
        drawn
    };
    let desperate = !stands && eligible == 0 && retry.tag == 0;
    Lookup::Found(chosen(address(tables, families, slot), slot.id(), desperate, another))
}

#[inline(always)]
fn chosen(address: Ip6Be, id: BackendId, desperate: bool, another: bool) -> Choice {
    Choice { id, address, desperate, another, ..Choice::default() }
}

/// The address in a slot of a backend or a source. For an `AF_INET` socket there is one kind only, and the programs are shorter.
#[inline(always)]
pub(super) fn address(tables: &impl Tables, families: Families, slot: Slot) -> Ip6Be {
    if (families.six_first || families.both) && slot.is_v6() { tables.address6(slot.id()) } else { Ip6Be::mapped(slot.address()) }
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

    use crate::{addr::Ip4Be, route::Options};

    const SLOTS: usize = 256;

    /// Port pairs, backends, and the slots behind them.
    type Parts<'a> = (&'a [(u16, u16)], &'a [u32], Vec<Slot>);

    pub(in crate::decide) struct TestTables {
        routes: RefCell<BTreeMap<u32, RouteEntry>>,
        slots: RefCell<Vec<Slot>>,
        pub(super) health: BTreeMap<u32, Health>,
        pub(super) now: u64,
        pub(super) clock_reads: Cell<u32>,
        seed: Cell<u64>,
        turn: Cell<u32>,
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
                turn: Cell::new(0),
                flip: Cell::new(None),
            }
        }
    }

    impl TestTables {
        /// Numbers from here on have IPv6 addresses.
        pub(in crate::decide) const FIRST_V6: u32 = 100;

        pub(in crate::decide) fn address(id: u32) -> Ip6Be {
            if id >= Self::FIRST_V6 { Ip6Be([0xfd, 0, 0, id]) } else { Ip6Be::mapped(Ip4Be::from_octets([203, 0, 113, id as u8])) }
        }

        /// One route whose backends have the numbers `ids`, in a block of generation 1 at slot 10.
        pub(in crate::decide) fn with_route(index: u32, ports: &[(u16, u16)], ids: &[u32], policy: u8) -> Self {
            let tables = Self::default();
            tables.put(index, 10, 1, ports, ids, policy);
            tables
        }

        /// The same on every port, with options and the numbers of source addresses.
        pub(in crate::decide) fn with_options(index: u32, ids: &[u32], idle_seconds: u16, sources: &[u32]) -> Self {
            let tables = Self::default();
            let sixes = sources.iter().filter(|&&id| id >= Self::FIRST_V6).count() as u8;
            let options = Options { idle_seconds, sources4: sources.len() as u8 - sixes, sources6: sixes };
            let slots = [Slot::options(1, options)].into_iter().chain(sources.iter().map(|&id| Self::slot_of(1, id))).collect();
            tables.put_all(index, 10, 1, (&[], ids, slots), RouteEntry::OPTIONS);
            tables
        }

        fn slot_of(generation: u8, id: u32) -> Slot {
            match Self::address(id).as_mapped() {
                Some(address) => Slot::v4(generation, BackendId(id), address),
                None => Slot::v6(generation, BackendId(id)),
            }
        }

        fn put(&self, index: u32, first: u32, generation: u8, ports: &[(u16, u16)], ids: &[u32], policy: u8) {
            self.put_all(index, first, generation, (ports, ids, Vec::new()), policy);
        }

        fn put_all(&self, index: u32, first: u32, generation: u8, parts: Parts<'_>, policy: u8) {
            let (ports, ids, options) = parts;
            let ports_slots = ports.iter().map(|&(client, to)| Slot::port(generation, PortBe::new(client), PortBe::new(to)));
            let backend_slots = ids.iter().map(|&id| Self::slot_of(generation, id));
            let sixes = ids.iter().filter(|&&id| id >= Self::FIRST_V6).count() as u8;
            for (offset, slot) in ports_slots.chain(backend_slots).chain(options).enumerate() {
                self.slots.borrow_mut()[first as usize + offset] = slot;
            }
            let entry = RouteEntry {
                place: RouteEntry::place(first, sixes),
                ports: ports.len() as u8,
                backends4: ids.len() as u8 - sixes,
                generation,
                policy: policy | RouteEntry::PRESENT,
            };
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
        fn address6(&self, id: BackendId) -> Ip6Be {
            Self::address(id.0)
        }
        fn turn(&self, _index: u32) -> u32 {
            self.turn.set(self.turn.get() + 1);
            self.turn.get()
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
        draw_of(tables, Families::ONLY4, last)
    }

    fn draw_of(tables: &TestTables, families: Families, last: u32) -> (BTreeMap<u32, u32>, u32) {
        let entry = tables.route(VIP).expect("a route");
        let mut counts = BTreeMap::new();
        let mut desperate = 0;
        for _ in 0..DRAWS {
            let Lookup::Found(choice) = choose(tables, entry, families, BackendId(last)) else { panic!("no backend") };
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

    fn another(tables: &TestTables, last: u32) -> bool {
        let entry = tables.route(VIP).expect("a route");
        let choices: std::vec::Vec<bool> = (0..200)
            .map(|_| match choose(tables, entry, Families::ONLY4, BackendId(last)) {
                Lookup::Found(choice) => choice.another,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(choices.iter().all(|&another| another == choices[0]), "it depends on the draw");
        choices[0]
    }

    #[test]
    fn it_is_told_whether_another_one_is_eligible() {
        let mut tables = TestTables::with_route(VIP, &[], &[1, 2, 3, 4], 0);
        assert!(another(&tables, 0));
        assert!(another(&tables, 1), "the last one of this socket is one for the next");
        for id in [2, 3] {
            tables.health.insert(id, failed(tables.now));
        }
        assert!(another(&tables, 0));
        assert!(another(&tables, 4));
        tables.health.insert(4, failed(tables.now));
        assert!(!another(&tables, 0), "only one is left");
        tables.health.insert(1, failed(tables.now));
        assert!(!another(&tables, 0), "none is");
        assert!(!another(&TestTables::with_route(VIP, &[], &[1], 0), 0));
    }

    #[test]
    fn a_look_at_the_neighbour_does_not_bend_the_odds() {
        let mut tables = TestTables::with_route(VIP, &[], &[1, 2, 3, 4, 5], 0);
        tables.health.insert(3, failed(tables.now));
        tables.health.insert(5, Health(1 << 8 | 1));
        assert_uniform(&draw(&tables, 0).0, &[1, 2, 4, 5]);
    }

    #[test]
    fn each_client_gets_the_family_it_asked_for_and_the_other_only_when_it_can_and_must() {
        let mixed = TestTables::with_route(VIP, &[], &[1, 2, 101, 102, 103], 0);
        let (four, six) = (TestTables::with_route(VIP, &[], &[1, 2], 0), TestTables::with_route(VIP, &[], &[101, 102], 0));
        let dual4 = Families { six_first: false, both: true };
        let dual6 = Families { six_first: true, both: true };
        let only6 = Families { six_first: true, both: false };
        for (families, from_mixed) in
            [(Families::ONLY4, &[1, 2][..]), (dual4, &[1, 2]), (dual6, &[101, 102, 103]), (only6, &[101, 102, 103])]
        {
            assert_uniform(&draw_of(&mixed, families, 0).0, from_mixed);
        }
        assert_uniform(&draw_of(&four, dual6, 0).0, &[1, 2]);
        assert_uniform(&draw_of(&six, dual4, 0).0, &[101, 102]);
        let none = |tables: &TestTables, families| choose(tables, tables.route(VIP).expect("a route"), families, BackendId::NONE);
        assert_eq!(none(&four, only6), Lookup::None);
        assert_eq!(none(&six, Families::ONLY4), Lookup::None);
    }
}
