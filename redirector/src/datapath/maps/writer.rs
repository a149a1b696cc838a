//! Writing plans: new blocks first, then the routes flip to them, then the old blocks are free.
//! What goes, goes in the other order.
//!
//! Many changes are carried out together, table by table instead of route by route, so that each
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
            allocator::{BackendIds, SlotBlocks},
            arrays::{Elements, Stopped, write_all},
            counters::Counters,
            route_layout::{Numbered, Placed},
            routes::RouteTables,
        },
    },
    plan::{Change, PlannedRoute, by_family},
    route::PortPair,
};

/// So many changes are carried out together at most: plenty for a call to cost little, and the
/// first routes of a large plan are live soon.
const TOGETHER: usize = 1024;

/// The tables that plans are written to, and what stands in them.
pub(crate) struct Writer {
    pub(crate) routes: RouteTables,
    pub(crate) health: Array<MapData, Health>,
    pub(crate) counters: Counters,
    pub(crate) blocks: SlotBlocks,
    pub(crate) ids: BackendIds,
    /// The latest block's.
    pub(crate) generation: u8,
    /// The routes that stand, by index.
    pub(crate) placed: BTreeMap<u32, Placed>,
}

/// Changes that are ready to be carried out together: their room is taken, and nothing of them is
/// in the kernel yet.
#[derive(Default)]
struct Together {
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
    placed: Option<Placed>,
    /// The numbers that came with it.
    fresh: Vec<BackendId>,
    /// How long the lists were when this step was in them.
    ends: Ends,
}

struct Ends {
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
        let mut together = Together::default();
        for change in changes {
            // A second change of a route starts from the first one, which must stand by then.
            // Plans' differences ascend.
            let again = together.steps.last().is_some_and(|last| change.index() <= last.index);
            if again || together.steps.len() == TOGETHER {
                self.carry_out(std::mem::take(&mut together))?;
            }
            if self.prepare(change, &mut together).is_err() {
                // What is replaced so far makes room.
                self.carry_out(std::mem::take(&mut together))?;
                self.prepare(change, &mut together)?;
            }
        }
        self.carry_out(together)
    }

    /// Places the route that another table has: its backends keep their numbers, and what is known
    /// of them is not touched.
    pub(crate) fn copy(&mut self, index: u32, placed: Placed) -> Result<(), DatapathError> {
        let mut together = Together::default();
        for (address, id) in placed.numbered() {
            together.address(id, address);
        }
        self.place(index, placed, Vec::new(), &mut together)?;
        self.carry_out(together)
    }

    /// Takes the room that a change needs. On an error nothing is taken.
    fn prepare(&mut self, change: &Change, together: &mut Together) -> Result<(), DatapathError> {
        match change {
            Change::Put { index, route } => self.prepare_put(*index, route, together),
            Change::Withdraw { index } => {
                together.entries.push(*index, RouteEntry::default());
                together.step(*index, None, Vec::new());
                Ok(())
            }
        }
    }

    fn prepare_put(
        &mut self,
        index: u32,
        route: &PlannedRoute,
        together: &mut Together,
    ) -> Result<(), DatapathError> {
        let old = self.placed.get(&index);
        let known: &[Numbered] = old.map_or(&[], |placed| &placed.backends);
        let wanted: Vec<IpAddr> = match &route.backends {
            Some(addresses) => addresses.iter().copied().take(MAX_BACKENDS).collect(),
            None => known.iter().map(|&(address, _)| address).collect(),
        };
        let mut fresh = Vec::new();
        let backends = number(&mut self.ids, wanted, known, &mut fresh);
        let fresh_backends = fresh.len();
        let known: &[Numbered] = old.map_or(&[], |placed| &placed.sources);
        let (sources4, sources6) =
            route.sources.iter().take(MAX_SOURCES).partition(|address| address.is_ipv4());
        let mut sources: Vec<Numbered> =
            Vec::<IpAddr>::into_iter(sources4).map(|address| (address, BackendId::NONE)).collect();
        let numbered = number(&mut self.ids, sources6, known, &mut fresh);
        let ids: Vec<BackendId> = fresh.iter().map(|&(_, id)| id).collect();
        let (Some(backends), Some(numbered)) = (backends, numbered) else {
            ids.into_iter().for_each(|id| self.ids.free(id));
            return Err(full("backend numbers"));
        };
        sources.extend(numbered);
        let ports: Vec<PortPair> = route.ports.iter().copied().take(MAX_PORTS).collect();
        let entry = RouteEntry::default();
        let placed = Placed {
            entry,
            ports,
            backends,
            sources,
            idle_timeout: route.idle_timeout,
            on_no_backend: route.on_no_backend,
        };
        together.begin_anew(&fresh[..fresh_backends]);
        fresh.iter().for_each(|&(address, id)| together.address(id, address));
        self.place(index, placed, ids, together)
    }

    /// Finds a block for a route. The numbers that came with it are free again when there is none.
    fn place(
        &mut self,
        index: u32,
        mut placed: Placed,
        fresh: Vec<BackendId>,
        together: &mut Together,
    ) -> Result<(), DatapathError> {
        let Some(first) = self.blocks.take(placed.length()) else {
            fresh.into_iter().for_each(|id| self.ids.free(id));
            return Err(full("slots"));
        };
        // 0 is the generation of a slot that was never written.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        for (slot, value) in (first..).zip(placed.lay_out(first, self.generation)) {
            together.slots.push(slot, value);
        }
        together.entries.push(index, placed.entry);
        together.step(index, Some(placed), fresh);
        Ok(())
    }

    /// Writes what is ready. When an element is refused, only the changes before the one that needs
    /// it are carried out, whole.
    fn carry_out(&mut self, together: Together) -> Result<(), DatapathError> {
        let Together { steps, health, stats, times, addresses, slots, entries } = together;
        let (mut ready, mut refused) = (steps.len(), Ok(()));
        let mut write =
            |end: fn(&Ends) -> usize, table: &mut dyn FnMut(usize) -> Result<(), Stopped>| {
                let count = ready.checked_sub(1).map_or(0, |last| end(&steps[last].ends));
                if let Err(Stopped { written, error }) = table(count) {
                    ready = steps.partition_point(|step| end(&step.ends) <= written);
                    // Later tables are written for earlier changes only, so the last error is the
                    // earliest change's.
                    refused = Err(error);
                }
            };
        write(|ends| ends.numbers, &mut |count| {
            write_all(&mut self.health, names::HEALTH, health.first(count))
        });
        write(|ends| ends.numbers, &mut |count| {
            write_all(&mut self.counters.backends, names::BACKEND_STATS, stats.first(count))
        });
        write(|ends| ends.numbers, &mut |count| {
            write_all(&mut self.counters.backend_times, names::BACKEND_TIMES, times.first(count))
        });
        write(|ends| ends.addresses, &mut |count| {
            self.routes.set_addresses(addresses.first(count))
        });
        write(|ends| ends.slots, &mut |count| self.routes.set_slots(slots.first(count)));
        // The commit point: with each of these stores a route has its new block for all connects
        // that follow, or is gone.
        write(|ends| ends.entries, &mut |count| self.routes.set_entries(entries.first(count)));
        for (number, step) in steps.into_iter().enumerate() {
            if number < ready { self.settle(step) } else { self.give_up(step) }
        }
        refused
    }

    /// A step is carried out: what it replaced is free.
    fn settle(&mut self, step: Step) {
        let old = match step.placed {
            Some(placed) => self.placed.insert(step.index, placed),
            None => self.placed.remove(&step.index),
        };
        let Some(old) = old else { return };
        self.blocks.free(old.block());
        let kept: Vec<BackendId> =
            self.placed.get(&step.index).into_iter().flat_map(Placed::ids).collect();
        old.ids().filter(|id| !kept.contains(id)).for_each(|id| self.ids.free(id));
    }

    /// A step could not be carried out: what it would have used is free.
    fn give_up(&mut self, step: Step) {
        if let Some(placed) = step.placed {
            self.blocks.free(placed.block());
            step.fresh.into_iter().for_each(|id| self.ids.free(id));
        }
    }
}

impl Together {
    fn step(&mut self, index: u32, placed: Option<Placed>, fresh: Vec<BackendId>) {
        let (numbers, addresses) = (self.health.len(), self.addresses.len());
        let ends =
            Ends { numbers, addresses, slots: self.slots.len(), entries: self.entries.len() };
        self.steps.push(Step { index, placed, fresh, ends });
    }

    /// Backends that nobody knows anything of.
    fn begin_anew(&mut self, backends: &[Numbered]) {
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
/// `fresh` ones. Nothing when numbers run out.
fn number(
    ids: &mut BackendIds,
    addresses: Vec<IpAddr>,
    known: &[Numbered],
    fresh: &mut Vec<Numbered>,
) -> Option<Vec<Numbered>> {
    let number = |address: IpAddr| match known.iter().find(|(known, _)| *known == address) {
        Some(&numbered) => Some(numbered),
        None => {
            let id = ids.take()?;
            fresh.push((address, id));
            Some((address, id))
        }
    };
    let mut numbered: Vec<Numbered> =
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
