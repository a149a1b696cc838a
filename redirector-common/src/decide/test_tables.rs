//! Tables in memory, for the tests of decisions.

extern crate std;
use core::cell::{Cell, RefCell};
use std::{collections::BTreeMap, vec::Vec};

use super::{
    balance::scan_eligible,
    lookup::select,
    packed::{Candidates, ClientKey, Draw, DrawInput, Families, PortLookup, PortPairs, Selection},
    port_map::find_port,
    tables::{Client, Tables},
};
use crate::{
    addr::{Ip4Be, Ip6Be, PortBe},
    backend::{BackendId, Health},
    route::{RouteEntry, RouteOptions, Slot},
};

const SLOTS: usize = 256;

/// Port pairs, backends, and the slots behind them.
type Parts<'a> = (&'a [(u16, u16)], &'a [u32], Vec<Slot>);

/// Who asks; by default an `AF_INET` socket, for the first time.
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
}

pub(in crate::decide) struct TestTables {
    routes: RefCell<BTreeMap<u32, RouteEntry>>,
    slots: RefCell<Vec<Slot>>,
    pub(super) health: BTreeMap<u32, Health>,
    pub(super) now: u64,
    pub(super) clock_reads: Cell<u32>,
    seed: Cell<u64>,
    connects: Cell<u32>,
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
            connects: Cell::new(0),
            flip: Cell::new(None),
        }
    }
}

impl TestTables {
    /// Numbers from here on have IPv6 addresses.
    pub(in crate::decide) const FIRST_V6: u32 = 100;

    pub(in crate::decide) fn address(id: u32) -> Ip6Be {
        if id >= Self::FIRST_V6 {
            Ip6Be([0xfd, 0, 0, id])
        } else {
            Ip6Be::mapped(Ip4Be::from_octets([203, 0, 113, id as u8]))
        }
    }

    /// One route whose backends have the numbers `ids`, in a block of generation 1 at slot 10.
    pub(in crate::decide) fn with_route(
        index: u32,
        ports: &[(u16, u16)],
        ids: &[u32],
        policy: u8,
    ) -> Self {
        let tables = Self::default();
        tables.put(index, 10, 1, ports, ids, policy);
        tables
    }

    /// The same on every port, with options and the numbers of source addresses.
    pub(in crate::decide) fn with_options(
        index: u32,
        ids: &[u32],
        idle_seconds: u16,
        sources: &[u32],
    ) -> Self {
        let tables = Self::default();
        let sixes = sources.iter().filter(|&&id| id >= Self::FIRST_V6).count() as u8;
        let options =
            RouteOptions { idle_seconds, sources4: sources.len() as u8 - sixes, sources6: sixes };
        let slots = [Slot::options(1, options)]
            .into_iter()
            .chain(sources.iter().map(|&id| Self::slot_of(1, id)))
            .collect();
        tables.put_all(index, 10, 1, (&[], ids, slots), RouteEntry::OPTIONS);
        tables
    }

    fn slot_of(generation: u8, id: u32) -> Slot {
        match Self::address(id).as_mapped() {
            Some(address) => Slot::v4(generation, BackendId(id), address),
            None => Slot::v6(generation, BackendId(id)),
        }
    }

    fn put(
        &self,
        index: u32,
        first: u32,
        generation: u8,
        ports: &[(u16, u16)],
        ids: &[u32],
        policy: u8,
    ) {
        self.put_all(index, first, generation, (ports, ids, Vec::new()), policy);
    }

    fn put_all(&self, index: u32, first: u32, generation: u8, parts: Parts<'_>, policy: u8) {
        let (ports, ids, options) = parts;
        let ports_slots = ports
            .iter()
            .map(|&(client, to)| Slot::port(generation, PortBe::new(client), PortBe::new(to)));
        let backend_slots = ids.iter().map(|&id| Self::slot_of(generation, id));
        let sixes = ids.iter().filter(|&&id| id >= Self::FIRST_V6).count() as u8;
        for (offset, slot) in ports_slots.chain(backend_slots).chain(options).enumerate() {
            self.slots.borrow_mut()[first as usize + offset] = slot;
        }
        let entry = RouteEntry {
            block: RouteEntry::block(first, sixes),
            ports: ports.len() as u8,
            backends4: ids.len() as u8 - sixes,
            generation,
            policy: policy | RouteEntry::PRESENT,
        };
        self.routes.borrow_mut().insert(index, entry);
    }

    /// Another sequence of random numbers.
    pub(in crate::decide) fn seed(&mut self, seed: u64) {
        self.seed = Cell::new(seed);
    }

    /// Sets backend `id` aside as of now.
    pub(in crate::decide) fn fail(&mut self, id: u32) {
        self.health.insert(id, Health::HEALTHY.after_failure(self.now));
    }

    /// After the entry is read once, its block is overwritten by a stranger's and the entry points
    /// to a new one with backends 9, 10 and 11.
    pub(in crate::decide) fn flip_after_first_read(&mut self, index: u32) {
        self.flip.set(Some(index));
    }
}

impl Tables for TestTables {
    fn route(&self, index: u32) -> RouteEntry {
        let entry = self.routes.borrow().get(&index).copied().unwrap_or_default();
        if let Some(flipped) = self.flip.take() {
            self.put(99, 10, 77, &[(443, 443)], &[66], 0);
            self.put(flipped, 100, 2, &[(443, 443)], &[9, 10, 11], 0);
        }
        entry
    }
    fn slot(&self, index: u32) -> Slot {
        self.slots.borrow().get(index as usize).copied().unwrap_or_default()
    }
    fn address6(&self, id: BackendId) -> Ip6Be {
        Self::address(id.0)
    }
    fn connects(&self, _index: u32) -> u32 {
        self.connects.set(self.connects.get() + 1);
        self.connects.get()
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
    fn find_port(&self, pairs: PortPairs, client: PortBe) -> PortLookup {
        find_port(self, pairs, client)
    }
    fn scan_eligible(&self, candidates: Candidates, input: DrawInput) -> Draw {
        scan_eligible(self, candidates, input)
    }
    fn select(&self, index: u32, key: ClientKey) -> Selection {
        select(self, index, key)
    }
    fn reload(&self, word: u64) -> u64 {
        word
    }
}
