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
    test_tables::{Block, TestClient, TestTables, searches_of_these_tables},
};
use crate::{
    addr::{Ip6Be, PortBe},
    backend::{BackendId, Health},
    route::{RouteEntry, Slot},
};

const VIP: u32 = 0;
const OTHER_VIP: u32 = 1;
const SLOTS: usize = 8;
/// Where the route's two blocks are.
const BLOCKS: [u32; 2] = [0, 4];
/// Every port, unchanged.
const ANY_PORT: &[(u16, u16)] = &[];
const HTTPS: &[(u16, u16)] = &[(443, 443)];

/// Tables in the memory of two threads.
struct SharedTables {
    routes: [AtomicU64; 2],
    slots: Vec<AtomicU64>,
    /// The order of the loads.
    load: Ordering,
    random: u32,
}

impl SharedTables {
    fn new(load: Ordering, random: u32) -> Self {
        let routes = [AtomicU64::new(0), AtomicU64::new(0)];
        let slots = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { routes, slots, load, random }
    }

    fn write_block(&self, block: &Block<'_>) {
        for (element, slot) in self.slots[block.first as usize..].iter().zip(block.slots()) {
            element.store(slot.to_bits(), Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    fn write_entry(&self, vip: u32, block: &Block<'_>) {
        self.routes[vip as usize].store(block.entry(0).to_bits(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

impl Tables for SharedTables {
    fn route(&self, index: u32) -> RouteEntry {
        RouteEntry::from_bits(self.routes[index as usize].load(self.load))
    }
    fn slot(&self, index: u32) -> Slot {
        Slot::from_bits(self.slots[index as usize].load(self.load))
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

/// Replaces a route's block, and its old one by another route's, while another thread connects
/// to the route, and gives `check` the connect's outcome: each way of both that loom finds.
fn each_interleaving(
    load: Ordering,
    ports: &'static [(u16, u16)],
    backends: u32,
    check: fn(Verdict, Backend, &[u32]),
) {
    for random in (0..backends).map(|at| (u32::MAX / backends) * at + 1) {
        loom::model(move || {
            let own: Vec<u32> = (1..=2 * backends).collect();
            let (old_ids, new_ids) = own.split_at(backends as usize);
            let others: Vec<u32> = (50..50 + backends).collect();
            let old = Block { first: BLOCKS[0], ..Block::new(ports, old_ids) };
            let new = Block { first: BLOCKS[1], generation: 2, ids: new_ids, ..old.clone() };
            let other = Block { generation: 3, ids: &others, ..old.clone() };
            let tables = Arc::new(SharedTables::new(load, random));
            tables.write_block(&old);
            tables.write_entry(VIP, &old);
            let reader = thread::spawn({
                let tables = Arc::clone(&tables);
                move || connect_once(&tables)
            });
            tables.write_block(&new);
            tables.write_entry(VIP, &new);
            tables.write_block(&other);
            tables.write_entry(OTHER_VIP, &other);
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
    own.contains(&id) && reached == TestTables::address(id)
}

/// Holds even if loads are in no order at all.
#[test]
fn no_order_of_loads_leads_to_another_routes_backend() {
    for (ports, backends) in [(ANY_PORT, 1), (HTTPS, 1), (ANY_PORT, 2)] {
        each_interleaving(Ordering::Relaxed, ports, backends, |verdict, found, own| {
            assert!(verdict != Verdict::Redirect || is_own(found, own), "{found:?}");
        });
    }
}

/// A processor that loads in another order than the program's would have to delay one load for
/// longer than a system call of the writer takes.
#[test]
fn loads_in_the_programs_order_always_find_a_backend() {
    for (ports, backends) in [(ANY_PORT, 1), (HTTPS, 1), (ANY_PORT, 2), (HTTPS, 2)] {
        each_interleaving(Ordering::Acquire, ports, backends, |verdict, found, own| {
            assert!(verdict == Verdict::Redirect && is_own(found, own), "{verdict:?} {found:?}");
        });
    }
}
