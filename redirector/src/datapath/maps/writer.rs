//! Writes plans: first the new blocks, then the entries that point to them; after that the old
//! blocks are free. A route is removed in the opposite order.
//!
//! A batch of changes is written map by map instead of route by route, with one call per map. The
//! maps are in such an order that every element is written before the elements that point to it.

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
            flow_maps::BackendFilter,
            health_words::{WORDS, elements},
            route_layout::{IdentifiedAddr, RouteBlock},
            route_maps::RouteMaps,
        },
    },
    plan::{Change, PlannedRoute, by_family},
};

/// The most changes in a batch: enough to spread the cost of a call, and few enough that the first
/// routes of a large plan are soon in effect.
const MAX_BATCH: usize = 1024;

/// The maps that plans are written to, and their contents.
pub(crate) struct Writer {
    pub(crate) routes: RouteMaps,
    pub(crate) health: Array<MapData, Health>,
    pub(crate) counters: Counters,
    pub(crate) filter: BackendFilter,
    pub(crate) slots: SlotAllocator,
    pub(crate) ids: IdAllocator,
    /// The generation of the latest block.
    pub(crate) generation: u8,
    /// The routes in the maps, by index.
    pub(crate) blocks: BTreeMap<u32, RouteBlock>,
}

/// Prepared changes: their slots and IDs are allocated, but nothing is written yet.
#[derive(Default)]
struct Batch {
    steps: Vec<Step>,
    /// The health and counters of new IDs, which are reset.
    health: Elements<Health>,
    stats: Elements<BackendStats>,
    times: Elements<BackendTimes>,
    addresses: Elements<Ip6Be>,
    slots: Elements<Slot>,
    entries: Elements<RouteEntry>,
}

/// One change of a batch.
struct Step {
    index: u32,
    /// The new route; `None` for a removed one.
    block: Option<RouteBlock>,
    /// The IDs that it allocated.
    new_ids: Vec<BackendId>,
    /// The lengths of the batch's lists after this step.
    watermarks: Watermarks,
}

struct Watermarks {
    ids: usize,
    addresses: usize,
    slots: usize,
    entries: usize,
}

impl Writer {
    /// Applies `changes` in order.
    ///
    /// # Errors
    ///
    /// The first change that does not fit or that the kernel refuses; those before it stay, the
    /// others are not applied.
    pub(crate) fn apply(&mut self, changes: &[Change]) -> Result<(), DatapathError> {
        let mut batch = Batch::default();
        for change in changes {
            // A second change of a route builds on the first one, which must be committed. The
            // indices of a difference between plans ascend.
            let is_second = batch.steps.last().is_some_and(|last| change.index() <= last.index);
            if is_second || batch.steps.len() == MAX_BATCH {
                self.commit(std::mem::take(&mut batch))?;
            }
            if self.prepare(change, &mut batch).is_err() {
                // Committing frees what was replaced so far.
                self.commit(std::mem::take(&mut batch))?;
                self.prepare(change, &mut batch)?;
            }
        }
        self.commit(batch)
    }

    /// Copies a route from another version's maps: its backends keep their IDs, health and
    /// counters.
    pub(crate) fn copy(&mut self, index: u32, block: RouteBlock) -> Result<(), DatapathError> {
        let mut batch = Batch::default();
        for (address, id) in block.identified_addrs() {
            batch.push_address(id, address);
        }
        self.place(index, block, Vec::new(), &mut batch)?;
        self.commit(batch)
    }

    /// Allocates what a change needs. On an error nothing is allocated.
    fn prepare(&mut self, change: &Change, batch: &mut Batch) -> Result<(), DatapathError> {
        match change {
            Change::Put { index, route } => self.prepare_put(*index, route, batch),
            Change::Withdraw { index } => {
                batch.entries.push(*index, RouteEntry::default());
                batch.push_step(*index, None, Vec::new());
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
        let new_backends = new_ids.len();
        let known: &[IdentifiedAddr] = old.map_or(&[], |block| &block.sources);
        let sources = assign_source_ids(&mut self.ids, &route.sources, known, &mut new_ids);
        let ids: Vec<BackendId> = new_ids.iter().map(|&(_, id)| id).collect();
        let (Some(backends), Some(sources)) = (backends, sources) else {
            ids.into_iter().for_each(|id| self.ids.release(id));
            return Err(full("backend IDs"));
        };
        let block = RouteBlock {
            entry: RouteEntry::default(),
            ports: route.ports.iter().copied().take(MAX_PORTS).collect(),
            backends,
            sources,
            idle_timeout: route.idle_timeout,
            on_no_backend: route.on_no_backend,
        };
        batch.reset_stats(&new_ids[..new_backends]);
        new_ids.iter().for_each(|&(address, id)| batch.push_address(id, address));
        self.place(index, block, ids, batch)
    }

    /// Allocates a block for a route. If there is none, the new IDs are freed.
    fn place(
        &mut self,
        index: u32,
        mut block: RouteBlock,
        new_ids: Vec<BackendId>,
        batch: &mut Batch,
    ) -> Result<(), DatapathError> {
        // Before a guest's flow can get one of the backends.
        let filtered = block.backends.iter().try_for_each(|&(at, _)| self.filter.add(at));
        if let Err(error) = filtered {
            new_ids.into_iter().for_each(|id| self.ids.release(id));
            return Err(error);
        }
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
        batch.push_step(index, Some(block), new_ids);
        Ok(())
    }

    /// Writes a batch. If an element is refused, the changes before the one that needs it are
    /// committed, and no other.
    fn commit(&mut self, batch: Batch) -> Result<(), DatapathError> {
        let Batch { steps, health, stats, times, addresses, slots, entries } = batch;
        let (mut ready, mut refused) = (steps.len(), Ok(()));
        let mut write =
            |end: fn(&Watermarks) -> usize,
             map: &mut dyn FnMut(usize) -> Result<(), PartialWrite>| {
                let count = ready.checked_sub(1).map_or(0, |last| end(&steps[last].watermarks));
                if let Err(PartialWrite { written, error }) = map(count) {
                    ready = steps.partition_point(|step| end(&step.watermarks) <= written);
                    // Later maps are written for earlier changes only, so the last error belongs to
                    // the earliest change.
                    refused = Err(error);
                }
            };
        write(|watermarks| watermarks.ids, &mut |count| {
            let written = write_all(&mut self.health, names::HEALTH, health.first(count * WORDS));
            written.map_err(|partial| PartialWrite { written: partial.written / WORDS, ..partial })
        });
        write(|watermarks| watermarks.ids, &mut |count| {
            write_all(&mut self.counters.backends, names::BACKEND_STATS, stats.first(count))
        });
        write(|watermarks| watermarks.ids, &mut |count| {
            write_all(&mut self.counters.backend_times, names::BACKEND_TIMES, times.first(count))
        });
        write(|watermarks| watermarks.addresses, &mut |count| {
            self.routes.set_addresses(addresses.first(count))
        });
        write(|watermarks| watermarks.slots, &mut |count| {
            self.routes.set_slots(slots.first(count))
        });
        // The commit point: each of these stores replaces or removes a route for all connects that
        // follow.
        write(|watermarks| watermarks.entries, &mut |count| {
            self.routes.set_entries(entries.first(count))
        });
        for (number, step) in steps.into_iter().enumerate() {
            if number < ready { self.commit_step(step) } else { self.roll_back(step) }
        }
        refused
    }

    /// Records a committed step, and frees what it replaced.
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

    /// Frees what a step allocated that was not committed.
    fn roll_back(&mut self, step: Step) {
        if let Some(block) = step.block {
            self.slots.release(block.slot_range());
            step.new_ids.into_iter().for_each(|id| self.ids.release(id));
        }
    }
}

impl Batch {
    fn push_step(&mut self, index: u32, block: Option<RouteBlock>, new_ids: Vec<BackendId>) {
        let (ids, addresses) = (self.stats.len(), self.addresses.len());
        let watermarks =
            Watermarks { ids, addresses, slots: self.slots.len(), entries: self.entries.len() };
        self.steps.push(Step { index, block, new_ids, watermarks });
    }

    /// Resets the health and counters of new backends.
    fn reset_stats(&mut self, backends: &[IdentifiedAddr]) {
        for &(_, id) in backends {
            elements(id.0).for_each(|element| self.health.push(element, Health::HEALTHY));
            self.stats.push(id.0, BackendStats::default());
            self.times.push(id.0, BackendTimes::default());
        }
    }

    /// Writes the address of an ID, if it does not fit into a slot.
    fn push_address(&mut self, id: BackendId, address: IpAddr) {
        if let IpAddr::V6(address) = address {
            self.addresses.push(id.0, address::ip6(address));
        }
    }
}

/// The IDs of addresses, IPv4 ones first: known addresses keep theirs, the others get `new_ids`.
/// `None` if there are not enough.
fn assign_ids(
    ids: &mut IdAllocator,
    addresses: Vec<IpAddr>,
    known: &[IdentifiedAddr],
    new_ids: &mut Vec<IdentifiedAddr>,
) -> Option<Vec<IdentifiedAddr>> {
    let identify = |address: IpAddr| match known.iter().find(|(known, _)| *known == address) {
        Some(&identified) => Some(identified),
        None => {
            let id = ids.allocate()?;
            new_ids.push((address, id));
            Some((address, id))
        }
    };
    let mut identified: Vec<IdentifiedAddr> =
        by_family(addresses).into_iter().map(identify).collect::<Option<_>>()?;
    // The list lives as long as the route, and most have one or two addresses.
    identified.shrink_to_fit();
    Some(identified)
}

/// As [`assign_ids`], for the source addresses of a route: only IPv6 ones need an ID.
fn assign_source_ids(
    ids: &mut IdAllocator,
    sources: &[IpAddr],
    known: &[IdentifiedAddr],
    new_ids: &mut Vec<IdentifiedAddr>,
) -> Option<Vec<IdentifiedAddr>> {
    let (sources4, sources6): (Vec<IpAddr>, Vec<IpAddr>) =
        sources.iter().copied().take(MAX_SOURCES).partition(IpAddr::is_ipv4);
    let mut identified: Vec<IdentifiedAddr> =
        sources4.into_iter().map(|address| (address, BackendId::NONE)).collect();
    identified.extend(assign_ids(ids, sources6, known, new_ids)?);
    Some(identified)
}

fn full(what: &'static str) -> DatapathError {
    DatapathError::Full { what, remedy: "use fewer backends and ports per route, or a larger pool" }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
