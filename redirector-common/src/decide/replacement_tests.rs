//! A block is replaced while another processor reads it, with each order of the loads and stores
//! that loom finds.
//!
//! The model's stores are the writer's (`redirector/src/datapath/maps/writer.rs`): a new block,
//! then the entry, then another route's block over the old one. Each is one system call, so a fence
//! is between them.

extern crate std;
use std::{sync::Arc, vec::Vec};

use loom::{
    sync::atomic::{AtomicU64, Ordering, fence},
    thread,
};

use super::{
    backend::Backend,
    connect::{Verdict, connect},
    fast_path::{few_backends, single_backend},
    packed::Families,
    tables::Tables,
    test_tables::{TestClient, TestTables, searches_of_these_tables},
};
use crate::{
    addr::{Ip4Be, Ip6Be, PortBe},
    backend::{BackendId, Health},
    route::{RouteEntry, Slot},
};

const VIP: u32 = 0;
const OTHER_VIP: u32 = 1;
const SLOTS: usize = 8;
/// Where the route's two blocks are.
const BLOCKS: [u32; 2] = [0, 4];

/// Tables in the memory of two threads.
struct SharedTables {
    routes: [AtomicU64; 2],
    slots: Vec<AtomicU64>,
    /// Of the entry's load. What it leads to is loaded after it on every processor, as an address
    /// depends on it.
    entry_load: Ordering,
    /// Of the slots' loads.
    slot_load: Ordering,
    random: u32,
}

/// A block and the IDs of its backends.
#[derive(Clone, Copy)]
struct Block<'a> {
    first: u32,
    generation: u8,
    has_port: bool,
    ids: &'a [u32],
}

impl SharedTables {
    fn new(entry_load: Ordering, slot_load: Ordering, random: u32) -> Self {
        let routes = [AtomicU64::new(0), AtomicU64::new(0)];
        let slots = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { routes, slots, entry_load, slot_load, random }
    }

    fn write_block(&self, block: Block<'_>) {
        let Block { generation, .. } = block;
        let https = PortBe::new(443);
        let port = block.has_port.then(|| Slot::port(generation, https, https));
        let backends = block.ids.iter().map(|&id| Slot::v4(generation, BackendId(id), address(id)));
        let at = &self.slots[block.first as usize..];
        for (element, slot) in at.iter().zip(port.into_iter().chain(backends)) {
            element.store(slot.to_bits(), Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    fn write_entry(&self, vip: u32, block: Block<'_>) {
        let entry = RouteEntry {
            block: RouteEntry::block(block.first, 0),
            ports: u8::from(block.has_port),
            backends4: block.ids.len() as u8,
            generation: block.generation,
            policy: RouteEntry::PRESENT,
        };
        self.routes[vip as usize].store(entry.to_bits(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

impl Tables for SharedTables {
    fn route(&self, index: u32) -> RouteEntry {
        RouteEntry::from_bits(self.routes[index as usize].load(self.entry_load))
    }
    fn slot(&self, index: u32) -> Slot {
        Slot::from_bits(self.slots[index as usize].load(self.slot_load))
    }
    fn address6(&self, _id: BackendId) -> Ip6Be {
        Ip6Be::default()
    }
    fn connects(&self, _index: u32) -> u32 {
        0
    }
    fn health(&self, _id: BackendId, _port: PortBe) -> Health {
        Health::HEALTHY
    }
    fn succeeded_ns(&self, _id: BackendId) -> Option<u64> {
        Some(0)
    }
    fn now_ns(&self) -> u64 {
        0
    }
    fn random(&self) -> u32 {
        self.random
    }
    searches_of_these_tables!();
}

fn address(id: u32) -> Ip4Be {
    Ip4Be::from_octets([203, 0, 113, id as u8])
}

/// Replaces a route's block, and its old one by another route's, while another thread connects
/// to the route, and gives `check` the connect's outcome: each way of both that loom finds.
fn each_interleaving(
    (entry_load, slot_load): (Ordering, Ordering),
    has_port: bool,
    backends: u32,
    check: fn(Verdict, Backend, &[u32]),
) {
    for random in (0..backends).map(|at| (u32::MAX / backends) * at + 1) {
        loom::model(move || {
            let own: Vec<u32> = (1..=2 * backends).collect();
            let (old_ids, new_ids) = own.split_at(backends as usize);
            let others: Vec<u32> = (100..100 + backends).collect();
            let old = Block { first: BLOCKS[0], generation: 1, has_port, ids: old_ids };
            let new = Block { first: BLOCKS[1], generation: 2, ids: new_ids, ..old };
            let other = Block { generation: 3, ids: &others, ..old };
            let tables = Arc::new(SharedTables::new(entry_load, slot_load, random));
            tables.write_block(old);
            tables.write_entry(VIP, old);
            let reader = thread::spawn({
                let tables = Arc::clone(&tables);
                move || connect_once(&tables)
            });
            tables.write_block(new);
            tables.write_entry(VIP, new);
            tables.write_block(other);
            tables.write_entry(OTHER_VIP, other);
            let (verdict, found) = reader.join().expect("the reader ends");
            check(verdict, found, &own);
        });
    }
}

/// As the program does: the fast path, and the other one if that finds nothing.
fn connect_once(tables: &SharedTables) -> (Verdict, Backend) {
    let client = TestClient::default();
    let fast = single_backend(tables, VIP, &client);
    if let Some(found) = fast.or_else(|| few_backends(tables, VIP, &client)) {
        return (Verdict::Redirect, found);
    }
    let mut found = Backend::default();
    (connect(tables, VIP, &client, &mut found), found)
}

fn is_own(found: Backend, own: &[u32]) -> bool {
    let id = found.id().0;
    let reached = found.address(&TestTables::default(), Families::V4_ONLY);
    own.contains(&id) && reached == Ip6Be::mapped(address(id))
}

/// Holds even if loads are in no order at all.
#[test]
fn no_order_of_loads_leads_to_another_routes_backend() {
    let no_order = (Ordering::Relaxed, Ordering::Relaxed);
    for (has_port, backends) in [(false, 1), (true, 1), (false, 2)] {
        each_interleaving(no_order, has_port, backends, |verdict, found, own| {
            assert!(verdict != Verdict::Redirect || is_own(found, own), "{found:?}");
        });
    }
}

/// A processor that loads in another order than the program's would have to delay one load for
/// longer than a system call of the writer takes.
#[test]
fn loads_in_the_programs_order_always_find_a_backend() {
    let in_order = (Ordering::Acquire, Ordering::Acquire);
    for (has_port, backends) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
        each_interleaving(in_order, has_port, backends, |verdict, found, own| {
            assert!(verdict == Verdict::Redirect && is_own(found, own), "{verdict:?} {found:?}");
        });
    }
}
