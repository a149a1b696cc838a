//! Writing plans: new blocks first, then the routes flip to them, then the old blocks are free.
//! What goes, goes in the other order.
//!
//! Many changes are carried out batch, table by table instead of route by route, so that each
//! table takes one call for all of them. That keeps the order: whatever a route points to is in the
//! tables before the route is.

use std::{collections::BTreeMap, net::IpAddr};

use aya::maps::{Array, MapData};
use redirector_common::{
    abi::{MAX_BACKENDS, MAX_PORTS, MAX_SOURCES},
    addr::Ip6Be,
    backend::{BackendId, Health},
    names,
    route::{RouteEntry, Slot},
    stats::{BackendStats, BackendTimes},
};

use crate::{
    datapath::{
        address,
        error::DatapathError,
        maps::{
            allocator::{IdAllocator, SlotAllocator},
            arrays::{Elements, PartialWrite, write_all},
            counters::Counters,
            route_layout::{IdentifiedAddr, RouteBlock},
            route_maps::RouteMaps,
        },
    },
    plan::{Change, PlannedRoute, by_family},
    route::PortPair,
};

/// So many changes are carried out batch at most: plenty for a call to cost little, and the
/// first routes of a large plan are live soon.
const MAX_BATCH: usize = 1024;

/// The tables that plans are written to, and what stands in them.
pub(crate) struct Writer {
    pub(crate) routes: RouteMaps,
    pub(crate) health: Array<MapData, Health>,
    pub(crate) counters: Counters,
    pub(crate) slots: SlotAllocator,
    pub(crate) ids: IdAllocator,
    /// The latest block's.
    pub(crate) generation: u8,
    /// The routes that stand, by index.
    pub(crate) blocks: BTreeMap<u32, RouteBlock>,
}

/// Changes that are ready to be carried out batch: their room is taken, and nothing of them is
/// in the kernel yet.
#[derive(Default)]
struct Batch {
    steps: Vec<Step>,
    /// Backend numbers that begin anew, with nobody's failures and counters.
    health: Elements<Health>,
    stats: Elements<BackendStats>,
    times: Elements<BackendTimes>,
    addresses: Elements<Ip6Be>,
    slots: Elements<Slot>,
    entries: Elements<RouteEntry>,
}

/// One change.
struct Step {
    index: u32,
    /// The route that comes; nothing for one that only goes.
    block: Option<RouteBlock>,
    /// The numbers that came with it.
    new_ids: Vec<BackendId>,
    /// How long the lists were when this step was in them.
    watermarks: Watermarks,
}

struct Watermarks {
    numbers: usize,
    addresses: usize,
    slots: usize,
    entries: usize,
}

impl Writer {
    /// Carries out `changes`, in order.
    ///
    /// # Errors
    ///
    /// The first change that does not fit or that the kernel refuses; those before it stand, those
    /// after it do not.
    pub(crate) fn apply(&mut self, changes: &[Change]) -> Result<(), DatapathError> {
        let mut batch = Batch::default();
        for change in changes {
            // A second change of a route starts from the first one, which must stand by then.
            // Plans' differences ascend.
            let again = batch.steps.last().is_some_and(|last| change.index() <= last.index);
            if again || batch.steps.len() == MAX_BATCH {
                self.commit(std::mem::take(&mut batch))?;
            }
            if self.prepare(change, &mut batch).is_err() {
                // What is replaced so far makes room.
                self.commit(std::mem::take(&mut batch))?;
                self.prepare(change, &mut batch)?;
            }
        }
        self.commit(batch)
    }

    /// Places the route that another table has: its backends keep their numbers, and what is known
    /// of them is not touched.
    pub(crate) fn copy(&mut self, index: u32, block: RouteBlock) -> Result<(), DatapathError> {
        let mut batch = Batch::default();
        for (address, id) in block.identified_addrs() {
            batch.address(id, address);
        }
        self.place(index, block, Vec::new(), &mut batch)?;
        self.commit(batch)
    }

    /// Takes the room that a change needs. On an error nothing is taken.
    fn prepare(&mut self, change: &Change, batch: &mut Batch) -> Result<(), DatapathError> {
        match change {
            Change::Put { index, route } => self.prepare_put(*index, route, batch),
            Change::Withdraw { index } => {
                batch.entries.push(*index, RouteEntry::default());
                batch.step(*index, None, Vec::new());
                Ok(())
            }
        }
    }

    fn prepare_put(
        &mut self,
        index: u32,
        route: &PlannedRoute,
        batch: &mut Batch,
    ) -> Result<(), DatapathError> {
        let old = self.blocks.get(&index);
        let known: &[IdentifiedAddr] = old.map_or(&[], |block| &block.backends);
        let wanted: Vec<IpAddr> = match &route.backends {
            Some(addresses) => addresses.iter().copied().take(MAX_BACKENDS).collect(),
            None => known.iter().map(|&(address, _)| address).collect(),
        };
        let mut new_ids = Vec::new();
        let backends = assign_ids(&mut self.ids, wanted, known, &mut new_ids);
        let fresh_backends = new_ids.len();
        let known: &[IdentifiedAddr] = old.map_or(&[], |block| &block.sources);
        let (sources4, sources6) =
            route.sources.iter().take(MAX_SOURCES).partition(|address| address.is_ipv4());
        let mut sources: Vec<IdentifiedAddr> =
            Vec::<IpAddr>::into_iter(sources4).map(|address| (address, BackendId::NONE)).collect();
        let numbered = assign_ids(&mut self.ids, sources6, known, &mut new_ids);
        let ids: Vec<BackendId> = new_ids.iter().map(|&(_, id)| id).collect();
        let (Some(backends), Some(numbered)) = (backends, numbered) else {
            ids.into_iter().for_each(|id| self.ids.release(id));
            return Err(full("backend numbers"));
        };
        sources.extend(numbered);
        let ports: Vec<PortPair> = route.ports.iter().copied().take(MAX_PORTS).collect();
        let entry = RouteEntry::default();
        let block = RouteBlock {
            entry,
            ports,
            backends,
            sources,
            idle_timeout: route.idle_timeout,
            on_no_backend: route.on_no_backend,
        };
        batch.reset_stats(&new_ids[..fresh_backends]);
        new_ids.iter().for_each(|&(address, id)| batch.address(id, address));
        self.place(index, block, ids, batch)
    }

    /// Finds a block for a route. The numbers that came with it are free again when there is none.
    fn place(
        &mut self,
        index: u32,
        mut block: RouteBlock,
        new_ids: Vec<BackendId>,
        batch: &mut Batch,
    ) -> Result<(), DatapathError> {
        let Some(first) = self.slots.allocate(block.slot_count()) else {
            new_ids.into_iter().for_each(|id| self.ids.release(id));
            return Err(full("slots"));
        };
        // 0 is the generation of a slot that was never written.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        for (slot, value) in (first..).zip(block.layout(first, self.generation)) {
            batch.slots.push(slot, value);
        }
        batch.entries.push(index, block.entry);
        batch.step(index, Some(block), new_ids);
        Ok(())
    }

    /// Writes what is ready. When an element is refused, only the changes before the one that needs
    /// it are carried out, whole.
    fn commit(&mut self, batch: Batch) -> Result<(), DatapathError> {
        let Batch { steps, health, stats, times, addresses, slots, entries } = batch;
        let (mut ready, mut refused) = (steps.len(), Ok(()));
        let mut write =
            |end: fn(&Watermarks) -> usize,
             table: &mut dyn FnMut(usize) -> Result<(), PartialWrite>| {
                let count = ready.checked_sub(1).map_or(0, |last| end(&steps[last].watermarks));
                if let Err(PartialWrite { written, error }) = table(count) {
                    ready = steps.partition_point(|step| end(&step.watermarks) <= written);
                    // Later tables are written for earlier changes only, so the last error is the
                    // earliest change's.
                    refused = Err(error);
                }
            };
        write(|watermarks| watermarks.numbers, &mut |count| {
            write_all(&mut self.health, names::HEALTH, health.first(count))
        });
        write(|watermarks| watermarks.numbers, &mut |count| {
            write_all(&mut self.counters.backends, names::BACKEND_STATS, stats.first(count))
        });
        write(|watermarks| watermarks.numbers, &mut |count| {
            write_all(&mut self.counters.backend_times, names::BACKEND_TIMES, times.first(count))
        });
        write(|watermarks| watermarks.addresses, &mut |count| {
            self.routes.set_addresses(addresses.first(count))
        });
        write(|watermarks| watermarks.slots, &mut |count| {
            self.routes.set_slots(slots.first(count))
        });
        // The commit point: with each of these stores a route has its new block for all connects
        // that follow, or is gone.
        write(|watermarks| watermarks.entries, &mut |count| {
            self.routes.set_entries(entries.first(count))
        });
        for (number, step) in steps.into_iter().enumerate() {
            if number < ready { self.commit_step(step) } else { self.roll_back(step) }
        }
        refused
    }

    /// A step is carried out: what it replaced is free.
    fn commit_step(&mut self, step: Step) {
        let old = match step.block {
            Some(block) => self.blocks.insert(step.index, block),
            None => self.blocks.remove(&step.index),
        };
        let Some(old) = old else { return };
        self.slots.release(old.slot_range());
        let kept: Vec<BackendId> =
            self.blocks.get(&step.index).into_iter().flat_map(RouteBlock::ids).collect();
        old.ids().filter(|id| !kept.contains(id)).for_each(|id| self.ids.release(id));
    }

    /// A step could not be carried out: what it would have used is free.
    fn roll_back(&mut self, step: Step) {
        if let Some(block) = step.block {
            self.slots.release(block.slot_range());
            step.new_ids.into_iter().for_each(|id| self.ids.release(id));
        }
    }
}

impl Batch {
    fn step(&mut self, index: u32, block: Option<RouteBlock>, new_ids: Vec<BackendId>) {
        let (numbers, addresses) = (self.health.len(), self.addresses.len());
        let watermarks =
            Watermarks { numbers, addresses, slots: self.slots.len(), entries: self.entries.len() };
        self.steps.push(Step { index, block, new_ids, watermarks });
    }

    /// Backends that nobody knows anything of.
    fn reset_stats(&mut self, backends: &[IdentifiedAddr]) {
        for &(_, id) in backends {
            self.health.push(id.0, Health::HEALTHY);
            self.stats.push(id.0, BackendStats::default());
            self.times.push(id.0, BackendTimes::default());
        }
    }

    /// The address behind a number, where it does not fit in a slot.
    fn address(&mut self, id: BackendId, address: IpAddr) {
        if let IpAddr::V6(address) = address {
            self.addresses.push(id.0, address::ip6(address));
        }
    }
}

/// The numbers of addresses, IPv4 ones first: those that are known keep theirs, the others get
/// `new_ids` ones. Nothing when numbers run out.
fn assign_ids(
    ids: &mut IdAllocator,
    addresses: Vec<IpAddr>,
    known: &[IdentifiedAddr],
    new_ids: &mut Vec<IdentifiedAddr>,
) -> Option<Vec<IdentifiedAddr>> {
    let number = |address: IpAddr| match known.iter().find(|(known, _)| *known == address) {
        Some(&numbered) => Some(numbered),
        None => {
            let id = ids.allocate()?;
            new_ids.push((address, id));
            Some((address, id))
        }
    };
    let mut numbered: Vec<IdentifiedAddr> =
        by_family(addresses).into_iter().map(number).collect::<Option<_>>()?;
    // Kept for as long as the route, and most routes have one or two.
    numbered.shrink_to_fit();
    Some(numbered)
}

fn full(what: &'static str) -> DatapathError {
    DatapathError::Full { what, remedy: "use fewer backends and ports per route, or a larger pool" }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
