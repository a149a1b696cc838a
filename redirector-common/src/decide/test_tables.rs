//! Tables in memory, for the tests of decisions.

extern crate std;
use core::cell::{Cell, RefCell};
use std::{collections::BTreeMap, vec::Vec};

use super::{
    packed::Families,
    tables::{Client, Tables},
};
use crate::{
    addr::{Ip4Be, Ip6Be, PortBe},
    backend::{BackendId, Caller, Health, Witness},
    route::{RouteEntry, RouteOptions, Slot},
};

/// Implements the searches of [`Tables`] with the tables themselves, as the kernel's tables do.
macro_rules! searches_of_these_tables {
    () => {
        fn find_port(
            &self,
            pairs: $crate::decide::PortPairs,
            client: $crate::addr::PortBe,
        ) -> $crate::decide::PortLookup {
            $crate::decide::find_port(self, pairs, client)
        }
        fn scan_eligible(
            &self,
            candidates: $crate::decide::Candidates,
            input: $crate::decide::DrawInput,
        ) -> $crate::decide::Draw {
            $crate::decide::scan_eligible(self, candidates, input)
        }
        fn latest_success(
            &self,
            candidates: $crate::decide::Candidates,
            input: $crate::decide::DrawInput,
        ) -> u32 {
            $crate::decide::latest_success(self, candidates, input)
        }
        fn select(&self, index: u32, key: $crate::decide::ClientKey) -> $crate::decide::Selection {
            $crate::decide::select(self, index, key)
        }
        fn reload(&self, word: u64) -> u64 {
            word
        }
    };
}
pub(in crate::decide) use searches_of_these_tables;

const SLOTS: usize = 256;

/// A block to be written: generation 1 at slot 10, unless changed.
#[derive(Clone)]
pub(super) struct Block<'a> {
    pub(super) first: u32,
    pub(super) generation: u8,
    pub(super) ports: &'a [(u16, u16)],
    /// IDs of the backends.
    pub(super) ids: &'a [u32],
    /// Slots of the options and the source addresses.
    pub(super) options: Vec<Slot>,
}

impl<'a> Block<'a> {
    pub(super) fn new(ports: &'a [(u16, u16)], ids: &'a [u32]) -> Self {
        Self { first: 10, generation: 1, ports, ids, options: Vec::new() }
    }

    /// What is written from its first slot on.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        let ports = self
            .ports
            .iter()
            .map(|&(client, to)| Slot::port(self.generation, PortBe::new(client), PortBe::new(to)));
        let backends = self.ids.iter().map(|&id| slot_of(self.generation, id));
        ports.chain(backends).chain(self.options.iter().copied())
    }

    /// The entry of a route that points to it.
    pub(super) fn entry(&self, policy: u8) -> RouteEntry {
        let backends6 = count_v6(self.ids);
        RouteEntry {
            block: RouteEntry::block(self.first, backends6),
            ports: self.ports.len() as u8,
            backends4: self.ids.len() as u8 - backends6,
            generation: self.generation,
            policy: policy | RouteEntry::PRESENT,
        }
    }
}

fn slot_of(generation: u8, id: u32) -> Slot {
    match TestTables::address(id).as_mapped() {
        Some(address) => Slot::v4(generation, BackendId(id), address),
        None => Slot::v6(generation, BackendId(id)),
    }
}

fn count_v6(ids: &[u32]) -> u8 {
    ids.iter().filter(|&&id| id >= TestTables::FIRST_V6).count() as u8
}

const CALLER_WITNESS: Witness = Witness::cgroup(7);

/// The default client, for judging a backend.
pub(in crate::decide) const CALLER: Caller = Caller::new(PortBe::new(443), CALLER_WITNESS);

/// A client; by default the first connect of an `AF_INET` socket.
#[derive(Clone, Copy, Debug)]
pub(in crate::decide) struct TestClient {
    pub(in crate::decide) port: PortBe,
    pub(in crate::decide) families: Families,
    pub(in crate::decide) last: BackendId,
}

impl Default for TestClient {
    fn default() -> Self {
        Self { port: PortBe::new(443), families: Families::V4_ONLY, last: BackendId::NONE }
    }
}

impl Client for TestClient {
    fn port(&self) -> PortBe {
        self.port
    }

    fn families(&self) -> Families {
        self.families
    }

    fn last(&self) -> BackendId {
        self.last
    }

    fn witness(&self) -> Witness {
        CALLER_WITNESS
    }
}

pub(in crate::decide) struct TestTables {
    routes: RefCell<BTreeMap<u32, RouteEntry>>,
    slots: RefCell<Vec<Slot>>,
    pub(super) health: BTreeMap<u32, Health>,
    pub(super) succeeded: BTreeMap<u32, u64>,
    pub(super) now: u64,
    pub(super) clock_reads: Cell<u32>,
    seed: Cell<u64>,
    connects: Cell<u32>,
    replaced_next: Cell<Option<u32>>,
}

impl Default for TestTables {
    fn default() -> Self {
        Self {
            routes: RefCell::default(),
            slots: RefCell::new(std::vec![Slot::default(); SLOTS]),
            health: BTreeMap::new(),
            succeeded: BTreeMap::new(),
            now: 5_000_000_000,
            clock_reads: Cell::new(0),
            seed: Cell::new(0x9e37_79b9_7f4a_7c15),
            connects: Cell::new(0),
            replaced_next: Cell::new(None),
        }
    }
}

impl TestTables {
    /// Backends with this ID or a larger one have IPv6 addresses.
    pub(in crate::decide) const FIRST_V6: u32 = 100;

    pub(in crate::decide) fn address(id: u32) -> Ip6Be {
        if id >= Self::FIRST_V6 {
            Ip6Be([0xfd, 0, 0, id])
        } else {
            Ip6Be::mapped(Ip4Be::from_octets([203, 0, 113, id as u8]))
        }
    }

    /// One route whose backends have these `ids`, in a block of generation 1 at slot 10.
    pub(in crate::decide) fn with_route(
        index: u32,
        ports: &[(u16, u16)],
        ids: &[u32],
        policy: u8,
    ) -> Self {
        let tables = Self::default();
        tables.put(index, &Block::new(ports, ids), policy);
        tables
    }

    /// The same on every port, with options and the IDs of source addresses.
    pub(in crate::decide) fn with_options(
        index: u32,
        ids: &[u32],
        idle_seconds: u16,
        sources: &[u32],
    ) -> Self {
        let tables = Self::default();
        let sources6 = count_v6(sources);
        let options =
            RouteOptions { idle_seconds, sources4: sources.len() as u8 - sources6, sources6 };
        let sources = sources.iter().map(|&id| slot_of(1, id));
        let options = [Slot::options(1, options)].into_iter().chain(sources).collect();
        tables.put(index, &Block { options, ..Block::new(&[], ids) }, RouteEntry::OPTIONS);
        tables
    }

    /// Writes the block and makes the entry at `index` point to it.
    fn put(&self, index: u32, block: &Block<'_>, policy: u8) {
        for (at, slot) in (block.first as usize..).zip(block.slots()) {
            self.slots.borrow_mut()[at] = slot;
        }
        self.routes.borrow_mut().insert(index, block.entry(policy));
    }

    /// Seeds the random numbers.
    pub(in crate::decide) fn seed(&mut self, seed: u64) {
        self.seed = Cell::new(seed);
    }

    /// Ejects backend `id` for the default client from now on.
    pub(in crate::decide) fn fail(&mut self, id: u32) {
        self.health.insert(id, Health::HEALTHY.after_failure(CALLER, self.now));
    }

    /// After the entry is read once, its block is overwritten by another route's and the entry
    /// points to a new block with backends 9, 10 and 11.
    pub(in crate::decide) fn replace_after_first_read(&mut self, index: u32) {
        self.replaced_next.set(Some(index));
    }
}

impl Tables for TestTables {
    fn route(&self, index: u32) -> RouteEntry {
        let entry = self.routes.borrow().get(&index).copied().unwrap_or_default();
        if let Some(replaced) = self.replaced_next.take() {
            let ports = &[(443, 443)];
            self.put(99, &Block { generation: 77, ..Block::new(ports, &[66]) }, 0);
            let block = Block { first: 100, generation: 2, ..Block::new(ports, &[9, 10, 11]) };
            self.put(replaced, &block, 0);
        }
        entry
    }
    fn slot(&self, index: u32) -> Slot {
        self.slots.borrow().get(index as usize).copied().unwrap_or_default()
    }
    fn address6(&self, id: BackendId) -> Ip6Be {
        if id.0 < Self::FIRST_V6 { Ip6Be::default() } else { Self::address(id.0) }
    }
    fn connects(&self, _index: u32) -> u32 {
        self.connects.set(self.connects.get() + 1);
        self.connects.get()
    }
    fn health(&self, id: BackendId, _port: PortBe) -> Health {
        self.health.get(&id.0).copied().unwrap_or_default()
    }
    fn succeeded_ns(&self, id: BackendId) -> Option<u64> {
        Some(self.succeeded.get(&id.0).copied().unwrap_or_default())
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
    searches_of_these_tables!();
}
