//! The tables: plans written block first, route last; counters and health read back; and all of it rebuilt from the pins after a restart.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    ops::Range,
};

use aya::maps::{Array, MapData};
use ipnet::Ipv4Net;
use redirector_common::{
    abi::{self, MAX_BACKENDS, MAX_PORTS},
    addr::{Ip4Be, PortBe},
    agent::AgentState,
    backend::{BackendId, Health},
    names,
    route::{RouteEntry, Slot},
    stats::{BackendStats, RouteStats},
};

use super::{
    BackendStatus, DatapathError, RouteCounters, SetAside, Suspect,
    blocks::{BackendIds, SlotBlocks},
    object::Object,
};
use crate::{
    plan::{Change, Plan, PlannedRoute},
    route::{OnNoBackend, PortPair},
    vip::Pool,
};

/// The tables in the kernel and what we know of them.
pub(super) struct Tables {
    routes: Array<MapData, RouteEntry>,
    slots: Array<MapData, Slot>,
    health: Array<MapData, Health>,
    route_stats: Array<MapData, RouteStats>,
    backend_stats: Array<MapData, BackendStats>,
    agent: Array<MapData, AgentState>,
    state: AgentState,
    blocks: SlotBlocks,
    ids: BackendIds,
    generation: u8,
    placed: BTreeMap<u32, Placed>,
}

/// A route that stands in the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Placed {
    entry: RouteEntry,
    ports: Vec<PortPair>,
    backends: Vec<(Ipv4Addr, BackendId)>,
    on_no_backend: OnNoBackend,
}

impl Placed {
    fn block(&self) -> Range<u32> {
        self.entry.first..self.entry.first + u32::from(self.entry.ports) + u32::from(self.entry.backends)
    }

    fn as_planned(&self) -> PlannedRoute {
        PlannedRoute {
            ports: self.ports.clone(),
            backends: Some(self.backends.iter().map(|&(address, _)| address.into()).collect()),
            on_no_backend: self.on_no_backend,
        }
    }
}

impl Tables {
    /// Takes the tables of a loaded object, and reads back what a previous agent left in them.
    pub(super) fn open(object: &mut Object, pool: &Pool) -> Result<Self, DatapathError> {
        let mut tables = Self {
            routes: object.array(names::ROUTES)?,
            slots: object.array(names::SLOTS)?,
            health: object.array(names::HEALTH)?,
            route_stats: object.array(names::ROUTE_STATS)?,
            backend_stats: object.array(names::BACKEND_STATS)?,
            agent: object.array(names::AGENT)?,
            state: AgentState::default(),
            blocks: SlotBlocks::new(abi::slots(pool.size())),
            ids: BackendIds::new(0, []),
            generation: 0,
            placed: BTreeMap::new(),
        };
        tables.claim(pool)?;
        tables.read_back(pool)?;
        Ok(tables)
    }

    /// Checks whose tables these are, and writes that they are ours.
    fn claim(&mut self, pool: &Pool) -> Result<(), DatapathError> {
        let found = read(&self.agent, names::AGENT, 0)?;
        let ours = AgentState {
            heartbeat_ns: found.heartbeat_ns,
            abi: abi::ABI,
            pid: std::process::id(),
            pool_base: Ip4Be::from_octets(pool.ipv4.network().octets()),
            pool_prefix: u32::from(pool.ipv4.prefix_len()),
        };
        if found.abi != 0 && found.abi != abi::ABI {
            return Err(DatapathError::OtherAbi { found: found.abi, ours: abi::ABI });
        }
        if found.abi != 0 && (found.pool_base, found.pool_prefix) != (ours.pool_base, ours.pool_prefix) {
            let network = Ipv4Net::new_assert(found.pool_base.octets().into(), found.pool_prefix.min(32) as u8);
            return Err(DatapathError::OtherPool { found: network, wanted: pool.ipv4.trunc() });
        }
        self.state = ours;
        write(&mut self.agent, names::AGENT, 0, ours)
    }

    /// Rebuilds our knowledge from the tables. An entry whose block is damaged is withdrawn: the next plan puts it again.
    fn read_back(&mut self, pool: &Pool) -> Result<(), DatapathError> {
        for index in 0..pool.size() {
            let entry = read(&self.routes, names::ROUTES, index)?;
            if !entry.is_present() {
                continue;
            }
            let placed = self.read_block(entry)?.filter(|placed| self.blocks.reserve(placed.block()));
            match placed {
                Some(placed) => {
                    self.generation = self.generation.max(entry.generation);
                    self.placed.insert(index, placed);
                }
                None => write(&mut self.routes, names::ROUTES, index, RouteEntry::default())?,
            }
        }
        let taken = self.placed.values().flat_map(|placed| placed.backends.iter().map(|(_, id)| id.0));
        self.ids = BackendIds::new(abi::backends(pool.size()), taken);
        Ok(())
    }

    fn read_block(&self, entry: RouteEntry) -> Result<Option<Placed>, DatapathError> {
        let mut ports = Vec::new();
        let mut backends = Vec::new();
        let count = u32::from(entry.ports) + u32::from(entry.backends);
        for offset in 0..count {
            let Some(index) = entry.first.checked_add(offset).filter(|&index| index < self.slots.len()) else { return Ok(None) };
            let slot = read(&self.slots, names::SLOTS, index)?;
            if slot.generation() != entry.generation {
                return Ok(None);
            }
            if offset < u32::from(entry.ports) {
                ports.push(PortPair { client: slot.client_port().get(), destination: slot.destination_port().get() });
            } else {
                backends.push((Ipv4Addr::from(slot.address().octets()), slot.id()));
            }
        }
        let on_no_backend = if entry.passes() { OnNoBackend::Pass } else { OnNoBackend::Refuse };
        Ok(Some(Placed { entry, ports, backends, on_no_backend }))
    }

    pub(super) fn len(&self) -> usize {
        self.placed.len()
    }

    pub(super) fn plan(&self) -> Plan {
        Plan { routes: self.placed.iter().map(|(&index, placed)| (index, placed.as_planned())).collect() }
    }

    pub(super) fn apply(&mut self, change: &Change) -> Result<(), DatapathError> {
        match change {
            Change::Put { index, route } => self.put(*index, route),
            Change::Withdraw { index } => self.withdraw(*index),
        }
    }

    /// Writes a new block, then flips the route to it in one store, then frees the old block.
    fn put(&mut self, index: u32, route: &PlannedRoute) -> Result<(), DatapathError> {
        let old = self.placed.get(&index).cloned();
        let known = old.as_ref().map_or(&[][..], |placed| &placed.backends);
        let wanted: Vec<Ipv4Addr> = match &route.backends {
            Some(addresses) => addresses.iter().filter_map(as_ipv4).take(MAX_BACKENDS).collect(),
            None => known.iter().map(|&(address, _)| address).collect(),
        };
        let mut fresh = Vec::new();
        let mut backends = Vec::with_capacity(wanted.len());
        for address in wanted {
            let id = match known.iter().find(|(known, _)| *known == address) {
                Some(&(_, id)) => id,
                None => {
                    let id = self.ids.take().ok_or(full("backend numbers"))?;
                    fresh.push(id);
                    id
                }
            };
            backends.push((address, id));
        }
        for &id in &fresh {
            write(&mut self.health, names::HEALTH, id.0, Health::HEALTHY)?;
            write(&mut self.backend_stats, names::BACKEND_STATS, id.0, BackendStats::default())?;
        }
        let ports: Vec<PortPair> = route.ports.iter().copied().take(MAX_PORTS).collect();
        let placed = self.write_block(ports, backends, route.on_no_backend)?;
        // The commit point: from here on connects see the new block.
        write(&mut self.routes, names::ROUTES, index, placed.entry)?;
        let kept = placed.backends.clone();
        self.placed.insert(index, placed);
        if let Some(old) = old {
            self.blocks.free(old.block());
            let gone = old.backends.iter().filter(|(_, id)| !kept.iter().any(|(_, kept)| kept == id));
            gone.for_each(|&(_, id)| self.ids.free(id));
        }
        Ok(())
    }

    fn write_block(
        &mut self,
        ports: Vec<PortPair>,
        backends: Vec<(Ipv4Addr, BackendId)>,
        on_no_backend: OnNoBackend,
    ) -> Result<Placed, DatapathError> {
        let first = self.blocks.take((ports.len() + backends.len()) as u32).ok_or(full("slots"))?;
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let port_slots = ports.iter().map(|pair| Slot::port(generation, PortBe::new(pair.client), PortBe::new(pair.destination)));
        let backend_slots = backends.iter().map(|&(address, id)| Slot::backend(generation, id, Ip4Be::from_octets(address.octets())));
        for (slot, value) in (first..).zip(port_slots.chain(backend_slots)) {
            write(&mut self.slots, names::SLOTS, slot, value)?;
        }
        let pass = if on_no_backend == OnNoBackend::Pass { RouteEntry::PASS } else { 0 };
        let entry =
            RouteEntry { first, ports: ports.len() as u8, backends: backends.len() as u8, generation, policy: RouteEntry::PRESENT | pass };
        Ok(Placed { entry, ports, backends, on_no_backend })
    }

    /// The VIP's connects are refused from here on.
    fn withdraw(&mut self, index: u32) -> Result<(), DatapathError> {
        write(&mut self.routes, names::ROUTES, index, RouteEntry::default())?;
        if let Some(old) = self.placed.remove(&index) {
            self.blocks.free(old.block());
            old.backends.iter().for_each(|&(_, id)| self.ids.free(id));
        }
        Ok(())
    }

    pub(super) fn route_counters(&self, index: u32) -> Result<RouteCounters, DatapathError> {
        read(&self.route_stats, names::ROUTE_STATS, index).map(RouteCounters::from)
    }

    pub(super) fn backends(&self, index: u32) -> Result<Vec<BackendStatus>, DatapathError> {
        let backends = self.placed.get(&index).map_or(&[][..], |placed| &placed.backends);
        let now = monotonic_ns();
        backends
            .iter()
            .map(|&(address, id)| {
                let health = read(&self.health, names::HEALTH, id.0)?;
                let set_aside = health
                    .is_set_aside(now)
                    .then(|| SetAside { failures: health.failures(), retry_in_ms: health.until_ns().saturating_sub(now) / 1_000_000 });
                let counters = read(&self.backend_stats, names::BACKEND_STATS, id.0)?.into();
                Ok(BackendStatus { address: address.into(), set_aside, counters })
            })
            .collect()
    }

    pub(super) fn suspects(&self) -> Result<Vec<Suspect>, DatapathError> {
        let mut suspects = Vec::new();
        for (&index, placed) in &self.placed {
            for &(address, id) in &placed.backends {
                let health = read(&self.health, names::HEALTH, id.0)?;
                if health != Health::HEALTHY {
                    let port = read(&self.backend_stats, names::BACKEND_STATS, id.0)?.failed_port as u16;
                    suspects.push(Suspect { index, address: address.into(), port, failures: health.failures() });
                }
            }
        }
        Ok(suspects)
    }

    pub(super) fn reinstate(&mut self, index: u32, address: IpAddr) -> Result<(), DatapathError> {
        let backends = self.placed.get(&index).map_or(&[][..], |placed| &placed.backends);
        match backends.iter().find(|(known, _)| IpAddr::from(*known) == address) {
            Some(&(_, id)) => write(&mut self.health, names::HEALTH, id.0, Health::HEALTHY),
            None => Ok(()),
        }
    }

    pub(super) fn beat(&mut self) -> Result<(), DatapathError> {
        self.state.heartbeat_ns = monotonic_ns();
        write(&mut self.agent, names::AGENT, 0, self.state)
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of `bpf_ktime_get_ns`.
pub(super) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn as_ipv4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    }
}

fn full(what: &'static str) -> DatapathError {
    DatapathError::Full { what, remedy: "use fewer backends and ports per route, or a larger pool" }
}

pub(super) fn read<V: aya::Pod>(table: &Array<MapData, V>, name: &str, index: u32) -> Result<V, DatapathError> {
    table.get(&index, 0).map_err(|error| DatapathError::call(format!("read {name}[{index}]"), error))
}

fn write<V: aya::Pod>(table: &mut Array<MapData, V>, name: &str, index: u32, value: V) -> Result<(), DatapathError> {
    table.set(index, value, 0).map_err(|error| DatapathError::call(format!("write {name}[{index}]"), error))
}
