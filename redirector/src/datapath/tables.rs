//! The tables: plans written block first, route last; counters and health read back; and all of it rebuilt from the pins after a restart.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use aya::maps::{Array, MapData};
use ipnet::{Ipv4Net, Ipv6Net};
use redirector_common::{
    abi::{self, MAX_BACKENDS, MAX_PORTS, MAX_SOURCES},
    addr::Ip4Be,
    agent::{AgentState, Control},
    backend::{BackendId, Health},
    names,
    route::RouteEntry,
    stats::{BackendStats, RouteStats},
};

use super::{
    BackendStatus, DatapathError, RouteCounters, SetAside, Suspect,
    blocks::{BackendIds, SlotBlocks},
    object::{self, Object},
    placed::{Numbered, Placed},
    routes::RouteTables,
    upgrade::Predecessor,
    version::Version,
};
use crate::{
    plan::{Change, Plan, PlannedRoute, by_family},
    route::PortPair,
    vip::Pool,
};

/// The tables in the kernel and what we know of them.
pub(super) struct Tables {
    kernel: RouteTables,
    health: Array<MapData, Health>,
    route_stats: Array<MapData, RouteStats>,
    backend_stats: Array<MapData, BackendStats>,
    control: Array<MapData, Control>,
    agent: Array<MapData, AgentState>,
    state: AgentState,
    blocks: SlotBlocks,
    ids: BackendIds,
    generation: u8,
    placed: BTreeMap<u32, Placed>,
}

impl Tables {
    /// Takes the tables of a loaded object, and reads back what a previous agent left in them, or in those of `predecessor`.
    pub(super) fn open(
        object: &mut Object,
        pool: &Pool,
        version: &Version,
        predecessor: Option<&Predecessor>,
    ) -> Result<Self, DatapathError> {
        let mut tables = Self {
            kernel: RouteTables::of(object)?,
            health: object.array(names::HEALTH)?,
            route_stats: object.array(names::ROUTE_STATS)?,
            backend_stats: object.array(names::BACKEND_STATS)?,
            control: object.array(names::CONTROL)?,
            agent: object.array(names::AGENT)?,
            state: AgentState::default(),
            blocks: SlotBlocks::new(abi::slots(pool.size())),
            ids: BackendIds::new(0, []),
            generation: 0,
            placed: BTreeMap::new(),
        };
        tables.claim(pool, version.abi)?;
        tables.read_back(pool)?;
        if let Some(predecessor) = predecessor {
            tables.succeed(predecessor, pool)?;
        }
        Ok(tables)
    }

    /// Checks whose tables these are, and writes that they are ours.
    fn claim(&mut self, pool: &Pool, abi: u32) -> Result<(), DatapathError> {
        let found = read(&self.agent, names::AGENT, 0)?;
        if found.abi != 0 && found.abi != abi {
            return Err(DatapathError::OtherAbi { found: found.abi, ours: abi });
        }
        refuse_other_pool(&found, pool)?;
        self.state = AgentState {
            heartbeat_ns: found.heartbeat_ns,
            abi,
            pid: std::process::id(),
            pool_base: Ip4Be::from_octets(pool.ipv4.network().octets()),
            pool_prefix: u32::from(pool.ipv4.prefix_len()),
            pool6_base: pool.ipv6.map(|net| object::ip6(net.network())).unwrap_or_default(),
        };
        write(&mut self.agent, names::AGENT, 0, self.state)
    }

    /// Rebuilds our knowledge from the tables. An entry whose block is damaged is withdrawn: the next plan puts it again.
    fn read_back(&mut self, pool: &Pool) -> Result<(), DatapathError> {
        for index in 0..pool.size() {
            let entry = self.kernel.entry(index)?;
            if !entry.is_present() {
                continue;
            }
            let placed = self.kernel.block(entry)?.filter(|placed| self.blocks.reserve(placed.block()));
            match placed {
                Some(placed) => {
                    self.generation = self.generation.max(entry.generation);
                    self.placed.insert(index, placed);
                }
                None => self.kernel.set_entry(index, RouteEntry::default())?,
            }
        }
        self.number_from(pool);
        Ok(())
    }

    /// Which backend numbers are free follows from what is placed.
    fn number_from(&mut self, pool: &Pool) {
        let taken = self.placed.values().flat_map(Placed::ids).map(|id| id.0);
        self.ids = BackendIds::new(abi::backends(pool.size()), taken);
    }

    /// Goes on where an older version's tables stand: its heartbeat, and those routes, health and counters that are not in shared tables. The
    /// backends keep their numbers, since origins and shared tables have them.
    fn succeed(&mut self, predecessor: &Predecessor, pool: &Pool) -> Result<(), DatapathError> {
        self.state.heartbeat_ns = predecessor.state.heartbeat_ns;
        write(&mut self.agent, names::AGENT, 0, self.state)?;
        let limit = abi::backends(pool.size());
        for (index, placed) in predecessor.routes()? {
            let ids: Vec<BackendId> = placed.ids().collect();
            if ids.iter().any(|id| id.0 >= limit) {
                continue;
            }
            for (address, id) in placed.numbered() {
                self.kernel.set_address(id, address)?;
            }
            let placed = self.write_block(placed)?;
            self.kernel.set_entry(index, placed.entry)?;
            self.placed.insert(index, placed);
            for id in ids {
                if let Some(health) = predecessor.health(id)? {
                    write(&mut self.health, names::HEALTH, id.0, health)?;
                }
                if let Some(stats) = predecessor.backend_stats(id)? {
                    write(&mut self.backend_stats, names::BACKEND_STATS, id.0, stats)?;
                }
            }
        }
        self.number_from(pool);
        Ok(())
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
            self.kernel.set_address(id, address)?;
        }
        let ports: Vec<PortPair> = route.ports.iter().copied().take(MAX_PORTS).collect();
        let entry = RouteEntry::default();
        let placed = Placed { entry, ports, backends, sources, idle_timeout: route.idle_timeout, on_no_backend: route.on_no_backend };
        let placed = self.write_block(placed)?;
        // The commit point: from here on connects see the new block.
        self.kernel.set_entry(index, placed.entry)?;
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
        let mut numbered: Vec<Numbered> = by_family(addresses).into_iter().map(number).collect::<Result<_, _>>()?;
        // Kept for as long as the route, and most routes have one or two.
        numbered.shrink_to_fit();
        Ok(numbered)
    }

    fn write_block(&mut self, mut placed: Placed) -> Result<Placed, DatapathError> {
        let first = self.blocks.take(placed.length()).ok_or(full("slots"))?;
        // 0 is the generation of a slot that was never written.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        for (slot, value) in (first..).zip(placed.lay_out(first, self.generation)) {
            self.kernel.set_slot(slot, value)?;
        }
        Ok(placed)
    }

    /// The VIP's connects are refused from here on.
    fn withdraw(&mut self, index: u32) -> Result<(), DatapathError> {
        self.kernel.set_entry(index, RouteEntry::default())?;
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

    /// See [`super::Datapath::hold`].
    pub(super) fn hold(&mut self, index: u32, address: IpAddr, time: Duration) -> Result<(), DatapathError> {
        let backends = self.placed.get(&index).map_or(&[][..], |placed| &placed.backends);
        let Some(&(_, id)) = backends.iter().find(|(known, _)| *known == address) else { return Ok(()) };
        let until = monotonic_ns().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let held = read(&self.health, names::HEALTH, id.0)?.held(until);
        write(&mut self.health, names::HEALTH, id.0, held)
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

/// Refuses tables whose VIPs are of another pool.
pub(super) fn refuse_other_pool(found: &AgentState, pool: &Pool) -> Result<(), DatapathError> {
    if found.abi == 0 {
        return Ok(());
    }
    let prefix = found.pool_prefix.min(32) as u8;
    let network = Ipv4Net::new_assert(found.pool_base.octets().into(), prefix).trunc();
    if network != pool.ipv4.trunc() {
        return Err(DatapathError::OtherPool { found: network.into(), wanted: pool.ipv4.trunc().into() });
    }
    // An IPv6 pool may come or go, since nothing in the tables names its addresses; another one would be somebody's VIPs.
    let network = Ipv6Net::new_assert(object::from_ip6(found.pool6_base), 96 + prefix).trunc();
    match pool.ipv6.map(|net| net.trunc()) {
        Some(wanted) if !found.pool6_base.is_unspecified() && wanted != network => {
            Err(DatapathError::OtherPool { found: network.into(), wanted: wanted.into() })
        }
        _ => Ok(()),
    }
}

fn full(what: &'static str) -> DatapathError {
    DatapathError::Full { what, remedy: "use fewer backends and ports per route, or a larger pool" }
}

pub(super) fn read<V: aya::Pod>(table: &Array<MapData, V>, name: &str, index: u32) -> Result<V, DatapathError> {
    table.get(&index, 0).map_err(|error| DatapathError::call(format!("read {name}[{index}]"), error))
}

pub(super) fn write<V: aya::Pod>(table: &mut Array<MapData, V>, name: &str, index: u32, value: V) -> Result<(), DatapathError> {
    table.set(index, value, 0).map_err(|error| DatapathError::call(format!("write {name}[{index}]"), error))
}
