//! The tables: plans written block first, route last; counters and health read back; and all of it rebuilt from the pins after a restart.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use aya::maps::{Array, MapData};
use ipnet::{Ipv4Net, Ipv6Net};
use redirector_common::{
    abi::{self, MAX_BACKENDS, MAX_PORTS, MAX_SOURCES},
    addr::{Ip4Be, Ip6Be},
    agent::{AgentState, Control},
    backend::{BackendId, Health},
    names,
    route::{RouteEntry, Slot},
    stats::{BackendStats, RouteStats},
};

use super::{
    BackendStatus, DatapathError, RouteCounters, SetAside, Suspect,
    blocks::{BackendIds, SlotBlocks},
    object::{self, Object},
    placed::{Numbered, Placed},
};
use crate::{
    plan::{Change, Plan, PlannedRoute, by_family},
    route::PortPair,
    vip::Pool,
};

/// The tables in the kernel and what we know of them.
pub(super) struct Tables {
    routes: Array<MapData, RouteEntry>,
    slots: Array<MapData, Slot>,
    health: Array<MapData, Health>,
    route_stats: Array<MapData, RouteStats>,
    backend_stats: Array<MapData, BackendStats>,
    backends6: Array<MapData, Ip6Be>,
    control: Array<MapData, Control>,
    agent: Array<MapData, AgentState>,
    state: AgentState,
    blocks: SlotBlocks,
    ids: BackendIds,
    generation: u8,
    placed: BTreeMap<u32, Placed>,
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
            backends6: object.array(names::BACKENDS6)?,
            control: object.array(names::CONTROL)?,
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
            pool6_base: pool.ipv6.map(|net| object::ip6(net.network())).unwrap_or_default(),
        };
        if found.abi != 0 && found.abi != abi::ABI {
            return Err(DatapathError::OtherAbi { found: found.abi, ours: abi::ABI });
        }
        if found.abi != 0 && (found.pool_base, found.pool_prefix) != (ours.pool_base, ours.pool_prefix) {
            let network = Ipv4Net::new_assert(found.pool_base.octets().into(), found.pool_prefix.min(32) as u8);
            return Err(DatapathError::OtherPool { found: network.into(), wanted: pool.ipv4.trunc().into() });
        }
        // An IPv6 pool may come or go, since nothing in the tables names its addresses; another one would be somebody's VIPs.
        if found.abi != 0 && !found.pool6_base.is_unspecified() && !ours.pool6_base.is_unspecified() && found.pool6_base != ours.pool6_base
        {
            let prefix = 96 + found.pool_prefix.min(32) as u8;
            let network = Ipv6Net::new_assert(object::from_ip6(found.pool6_base), prefix);
            return Err(DatapathError::OtherPool {
                found: network.into(),
                wanted: pool.ipv6.map(|net| net.trunc()).unwrap_or_default().into(),
            });
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
        let taken = self.placed.values().flat_map(Placed::ids).map(|id| id.0);
        self.ids = BackendIds::new(abi::backends(pool.size()), taken);
        Ok(())
    }

    fn read_block(&self, entry: RouteEntry) -> Result<Option<Placed>, DatapathError> {
        let slot = |index| if index < self.slots.len() { read(&self.slots, names::SLOTS, index).map(Some) } else { Ok(None) };
        let address6 = |id: BackendId| Ok(object::from_ip6(read(&self.backends6, names::BACKENDS6, id.0)?));
        Placed::read(entry, slot, address6)
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
        let known: &[Numbered] = old.as_ref().map_or(&[], |placed| &placed.backends);
        let wanted: Vec<IpAddr> = match &route.backends {
            Some(addresses) => addresses.iter().copied().take(MAX_BACKENDS).collect(),
            None => known.iter().map(|&(address, _)| address).collect(),
        };
        let mut fresh = Vec::new();
        let backends = self.number(wanted, known, &mut fresh)?;
        for &(_, id) in &fresh {
            write(&mut self.health, names::HEALTH, id.0, Health::HEALTHY)?;
            write(&mut self.backend_stats, names::BACKEND_STATS, id.0, BackendStats::default())?;
        }
        let known: &[Numbered] = old.as_ref().map_or(&[], |placed| &placed.sources);
        let (sources4, sources6) = route.sources.iter().take(MAX_SOURCES).partition(|address| address.is_ipv4());
        let mut sources: Vec<Numbered> = Vec::<IpAddr>::into_iter(sources4).map(|address| (address, BackendId::NONE)).collect();
        sources.extend(self.number(sources6, known, &mut fresh)?);
        for &(address, id) in &fresh {
            if let IpAddr::V6(address) = address {
                write(&mut self.backends6, names::BACKENDS6, id.0, object::ip6(address))?;
            }
        }
        let ports: Vec<PortPair> = route.ports.iter().copied().take(MAX_PORTS).collect();
        let entry = RouteEntry::default();
        let placed = Placed { entry, ports, backends, sources, idle_timeout: route.idle_timeout, on_no_backend: route.on_no_backend };
        let placed = self.write_block(placed)?;
        // The commit point: from here on connects see the new block.
        write(&mut self.routes, names::ROUTES, index, placed.entry)?;
        if let Some(old) = old {
            self.blocks.free(old.block());
            let kept: Vec<BackendId> = placed.ids().collect();
            old.ids().filter(|id| !kept.contains(id)).for_each(|id| self.ids.free(id));
        }
        self.placed.insert(index, placed);
        Ok(())
    }

    /// The numbers of addresses, IPv4 ones first: those that are known keep theirs, the others get `fresh` ones.
    fn number(&mut self, addresses: Vec<IpAddr>, known: &[Numbered], fresh: &mut Vec<Numbered>) -> Result<Vec<Numbered>, DatapathError> {
        let number = |address: IpAddr| match known.iter().find(|(known, _)| *known == address) {
            Some(&numbered) => Ok(numbered),
            None => {
                let id = self.ids.take().ok_or(full("backend numbers"))?;
                fresh.push((address, id));
                Ok((address, id))
            }
        };
        by_family(addresses).into_iter().map(number).collect()
    }

    fn write_block(&mut self, mut placed: Placed) -> Result<Placed, DatapathError> {
        let first = self.blocks.take(placed.length()).ok_or(full("slots"))?;
        self.generation = self.generation.wrapping_add(1);
        for (slot, value) in (first..).zip(placed.lay_out(first, self.generation)) {
            write(&mut self.slots, names::SLOTS, slot, value)?;
        }
        Ok(placed)
    }

    /// The VIP's connects are refused from here on.
    fn withdraw(&mut self, index: u32) -> Result<(), DatapathError> {
        write(&mut self.routes, names::ROUTES, index, RouteEntry::default())?;
        if let Some(old) = self.placed.remove(&index) {
            self.blocks.free(old.block());
            old.ids().for_each(|id| self.ids.free(id));
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
                Ok(BackendStatus { address, set_aside, counters })
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
                    suspects.push(Suspect { index, address, port, failures: health.failures() });
                }
            }
        }
        Ok(suspects)
    }

    pub(super) fn reinstate(&mut self, index: u32, address: IpAddr) -> Result<(), DatapathError> {
        let backends = self.placed.get(&index).map_or(&[][..], |placed| &placed.backends);
        match backends.iter().find(|(known, _)| *known == address) {
            Some(&(_, id)) => write(&mut self.health, names::HEALTH, id.0, Health::HEALTHY),
            None => Ok(()),
        }
    }

    /// See [`super::Datapath::set_connect_timeout`].
    pub(super) fn set_connect_timeout(&mut self, timeout: Duration, hz: u32) -> Result<(), DatapathError> {
        let timeout = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let control = read(&self.control, names::CONTROL, 0)?.with_connect_timeout(timeout, hz);
        write(&mut self.control, names::CONTROL, 0, control)
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

fn full(what: &'static str) -> DatapathError {
    DatapathError::Full { what, remedy: "use fewer backends and ports per route, or a larger pool" }
}

pub(super) fn read<V: aya::Pod>(table: &Array<MapData, V>, name: &str, index: u32) -> Result<V, DatapathError> {
    table.get(&index, 0).map_err(|error| DatapathError::call(format!("read {name}[{index}]"), error))
}

fn write<V: aya::Pod>(table: &mut Array<MapData, V>, name: &str, index: u32, value: V) -> Result<(), DatapathError> {
    table.set(index, value, 0).map_err(|error| DatapathError::call(format!("write {name}[{index}]"), error))
}
