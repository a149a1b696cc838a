//! The maps that the agent writes: plans are written by `writer`; counters and health are read
//! here, and everything is rebuilt from the pins after a restart.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use aya::maps::{Array, MapData};
use redirector_common::{
    abi,
    addr::Ip4Be,
    agent::{AgentState, Control},
    backend::{BackendId, Health},
    event::EventStats,
    event_budget::{self, EventBudget},
    names,
    sampling::Sampling,
    stats::{BackendStats, BackendTimes, RouteCounters},
};

use crate::{
    datapath::{
        address,
        error::DatapathError,
        load::object::Object,
        maps::{
            allocator::{IdAllocator, SlotAllocator},
            arrays::{read, read_each, write},
            counters::Counters,
            flow_maps::BackendFilter,
            health_words::{HealthWords, RouteBackend, WORDS, change, each_words, elements, words},
            route_layout::{IdentifiedAddr, RouteBlock},
            route_maps::RouteMaps,
            writer::Writer,
        },
        pins::{compat::refuse_other_pool, upgrade::Predecessor, version::Version},
        status::{BackendStatus, RouteStatus, UnhealthyBackend},
        sys::monotonic_ns,
    },
    plan::{Change, Plan, PlannedRoute},
    pool::Pool,
};

/// The maps in the kernel that the agent writes or reads, with the state that it keeps of them.
pub(crate) struct AgentMaps {
    writer: Writer,
    control: Array<MapData, Control>,
    event_stats: Array<MapData, EventStats>,
    event_budgets: Array<MapData, EventBudget>,
    agent: Array<MapData, AgentState>,
    state: AgentState,
    /// Built at the first use after a change of the routes.
    health_index: Option<HealthIndex>,
}

/// The backends of all routes: their IDs, ascending, and the route of each. IDs are close together,
/// so a few calls read the health of all.
struct HealthIndex {
    ids: Vec<u32>,
    routes: Vec<u32>,
}

impl HealthIndex {
    fn new(blocks: &BTreeMap<u32, RouteBlock>) -> Self {
        let mut all = Vec::new();
        for (&index, block) in blocks {
            all.extend(block.backends.iter().map(|(_, id)| (id.0, index)));
        }
        all.sort_unstable();
        let (ids, routes) = all.into_iter().unzip();
        Self { ids, routes }
    }
}

/// The elements of one backend in the maps.
type BackendState = (HealthWords, BackendStats, BackendTimes);

impl AgentMaps {
    /// Takes the maps out of a loaded object and reads back what an earlier agent left in them, or
    /// in those of `predecessor`.
    pub(crate) fn open(
        object: &mut Object,
        pool: &Pool,
        version: &Version,
        predecessor: Option<&Predecessor>,
    ) -> Result<Self, DatapathError> {
        let writer = Writer {
            routes: RouteMaps::from_object(object)?,
            health: object.array(names::HEALTH)?,
            counters: Counters::from_object(object)?,
            filter: BackendFilter::from_object(object)?,
            slots: SlotAllocator::new(abi::slots(pool.size())),
            ids: IdAllocator::new(0, []),
            generation: 0,
            blocks: BTreeMap::new(),
        };
        let mut maps = Self {
            writer,
            control: object.array(names::CONTROL)?,
            event_stats: object.array(names::EVENT_STATS)?,
            event_budgets: object.array(names::EVENT_BUDGETS)?,
            agent: object.array(names::AGENT)?,
            state: AgentState::default(),
            health_index: None,
        };
        maps.claim(pool, version.abi)?;
        maps.read_back(pool)?;
        if let Some(predecessor) = predecessor {
            maps.adopt(predecessor, pool)?;
        }
        Ok(maps)
    }

    /// Checks whose maps these are and records that they are ours.
    fn claim(&mut self, pool: &Pool, abi: u32) -> Result<(), DatapathError> {
        let found = read(&self.agent, names::AGENT, 0)?;
        if found.abi != 0 && found.abi != abi {
            return Err(DatapathError::AbiMismatch { found: found.abi, ours: abi });
        }
        refuse_other_pool(&found, pool)?;
        self.state = AgentState {
            heartbeat_ns: found.heartbeat_ns,
            abi,
            pid: std::process::id(),
            pool_base: Ip4Be::from_octets(pool.ipv4.network().octets()),
            pool_prefix: u32::from(pool.ipv4.prefix_len()),
            pool6_base: pool.ipv6.map(|net| address::ip6(net.network())).unwrap_or_default(),
        };
        write(&mut self.agent, names::AGENT, 0, self.state)
    }

    /// Rebuilds the routes from the maps. An entry with a damaged block is withdrawn: the next plan
    /// puts it again.
    fn read_back(&mut self, pool: &Pool) -> Result<(), DatapathError> {
        let writer = &mut self.writer;
        for (index, entry) in writer.routes.present(pool.size())? {
            let block = writer
                .routes
                .block(entry)?
                .filter(|block| writer.slots.reserve(block.slot_range()));
            match block {
                Some(block) => {
                    // An earlier version had no filter.
                    block.backends.iter().try_for_each(|&(at, _)| writer.filter.add(at))?;
                    writer.generation = writer.generation.max(entry.generation);
                    writer.blocks.insert(index, block);
                }
                None => writer.apply(&[Change::Withdraw { index }])?,
            }
        }
        self.rebuild_ids(pool);
        Ok(())
    }

    /// The IDs that no block uses are free.
    fn rebuild_ids(&mut self, pool: &Pool) {
        let taken = self.writer.blocks.values().flat_map(RouteBlock::ids).map(|id| id.0);
        self.writer.ids = IdAllocator::new(abi::backends(pool.size()), taken);
    }

    /// Copies from an older version's maps its heartbeat, and the routes, health and counters that
    /// are not in shared maps. The backends keep their IDs, since origins and shared maps refer to
    /// them.
    fn adopt(&mut self, predecessor: &Predecessor, pool: &Pool) -> Result<(), DatapathError> {
        self.state.heartbeat_ns = predecessor.state.heartbeat_ns;
        write(&mut self.agent, names::AGENT, 0, self.state)?;
        let limit = abi::backends(pool.size());
        for (index, block) in predecessor.routes()? {
            let ids: Vec<BackendId> = block.ids().collect();
            if ids.iter().any(|id| id.0 >= limit) {
                continue;
            }
            self.writer.copy(index, block)?;
            for id in ids {
                for (element, health) in elements(id.0).zip(predecessor.health(id)?) {
                    write(&mut self.writer.health, names::HEALTH, element, health)?;
                }
                if let Some(stats) = predecessor.backend_stats(id)? {
                    write(&mut self.writer.counters.backends, names::BACKEND_STATS, id.0, stats)?;
                }
            }
        }
        self.rebuild_ids(pool);
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.writer.blocks.len()
    }

    pub(crate) fn has_route(&self, index: u32) -> bool {
        self.writer.blocks.contains_key(&index)
    }

    pub(crate) fn plan(&self) -> Plan {
        Plan {
            routes: self
                .writer
                .blocks
                .iter()
                .map(|(&index, block)| (index, block.to_planned()))
                .collect(),
        }
    }

    pub(crate) fn planned(&self, index: u32) -> Option<PlannedRoute> {
        self.writer.blocks.get(&index).map(RouteBlock::to_planned)
    }

    pub(crate) fn apply(&mut self, changes: &[Change]) -> Result<(), DatapathError> {
        if !changes.is_empty() {
            self.health_index = None;
        }
        self.writer.apply(changes)
    }

    /// Counts flows of the route at `index` that have expired.
    pub(crate) fn count_expired(&mut self, index: u32, flows: u64) -> Result<(), DatapathError> {
        self.writer.counters.count_expired(index, flows)
    }

    pub(crate) fn route_counters(&self, index: u32) -> Result<RouteCounters, DatapathError> {
        self.writer.counters.route(index)
    }

    pub(crate) fn backends(&self, index: u32) -> Result<Vec<BackendStatus>, DatapathError> {
        let now = monotonic_ns();
        self.backends_of(index)
            .iter()
            .map(|&(address, id)| {
                let health = words(&self.writer.health, id)?;
                self.writer.counters.backend((address, id), health, now)
            })
            .collect()
    }

    pub(crate) fn routes(&self, indices: &[u32]) -> Result<Vec<RouteStatus>, DatapathError> {
        let now = monotonic_ns();
        let backends_of_route = |(route, &index): (usize, &u32)| {
            self.backends_of(index).iter().map(move |&(address, id)| (id.0, route, address))
        };
        let backends = || indices.iter().enumerate().flat_map(backends_of_route);
        let states = self.backend_states(backends().map(|(id, ..)| id))?;
        let counters = self.writer.counters.routes(indices)?;
        let mut routes: Vec<_> = counters
            .into_iter()
            .map(|counters| RouteStatus { counters, backends: Vec::new() })
            .collect();
        for ((_, route, address), state) in backends().zip(states) {
            let Some((health, stats, times)) = state else { continue };
            routes[route].backends.push(BackendStatus::new(address, (health, now), (stats, times)));
        }
        Ok(routes)
    }

    /// The health and counters of the backends with these IDs, in the same order. Reads the maps in
    /// ascending order of the IDs.
    fn backend_states(
        &self,
        ids: impl Iterator<Item = u32>,
    ) -> Result<Vec<Option<BackendState>>, DatapathError> {
        let mut by_id: Vec<_> = ids.enumerate().map(|(place, id)| (id, place)).collect();
        by_id.sort_unstable();
        let (ids, places): (Vec<u32>, Vec<usize>) = by_id.into_iter().unzip();
        let mut health: Vec<[Health; WORDS]> = Vec::with_capacity(ids.len());
        let mut some = Vec::with_capacity(WORDS);
        each_words(&self.writer.health, &ids, |_, word| {
            some.push(word);
            if let Ok(words) = <[Health; WORDS]>::try_from(some.as_slice()) {
                health.push(words);
                some.clear();
            }
        })?;
        let mut states = vec![None; ids.len()];
        self.writer.counters.each_backend(&ids, |at, stats, times| {
            states[places[at]] = Some((health[at], stats, times))
        })?;
        Ok(states)
    }

    pub(crate) fn unhealthy_backends(&mut self) -> Result<Vec<UnhealthyBackend>, DatapathError> {
        let known = self.health_index.get_or_insert_with(|| HealthIndex::new(&self.writer.blocks));
        let mut failed = Vec::new();
        each_words(&self.writer.health, &known.ids, |at, health| {
            if health != Health::HEALTHY {
                failed.push((known.routes[at], BackendId(known.ids[at]), health));
            }
        })?;
        let suspect = |(index, id, health): (u32, BackendId, Health)| {
            let &(address, _) = self.backends_of(index).iter().find(|(_, known)| *known == id)?;
            Some(UnhealthyBackend {
                index,
                address,
                port: health.port().get(),
                failures: health.failures(),
                is_first_failure: health.is_first_failure(),
                client: health.witness().map(|witness| witness.bits() as u16),
                cause: health.into(),
                sources: self.sources_of(index, address),
            })
        };
        Ok(failed.into_iter().filter_map(suspect).collect())
    }

    /// The backends of the route at `index`; none if there is no such route.
    fn backends_of(&self, index: u32) -> &[IdentifiedAddr] {
        self.writer.blocks.get(&index).map_or(&[], |block| &block.backends)
    }

    /// The addresses from which the route at `index` connects to `address`.
    fn sources_of(&self, index: u32, address: IpAddr) -> Vec<IpAddr> {
        let sources = self.writer.blocks.get(&index).map_or(&[][..], |block| &block.sources);
        let sources = sources.iter().map(|&(source, _)| source);
        sources.filter(|source| source.is_ipv4() == address.is_ipv4()).collect()
    }

    /// The ID of one of them.
    fn id_of(&self, index: u32, address: IpAddr) -> Option<BackendId> {
        self.backends_of(index).iter().find(|(known, _)| *known == address).map(|&(_, id)| id)
    }

    pub(crate) fn reinstate(&mut self, at: RouteBackend) -> Result<(), DatapathError> {
        self.change_health(at, |health, now| health.after_probe(now))
    }

    pub(crate) fn extend_ejection(
        &mut self,
        at: RouteBackend,
        time: Duration,
    ) -> Result<(), DatapathError> {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.change_health(at, |health, now| health.ejected_until(now.saturating_add(time), now))
    }

    pub(crate) fn agree_on_failure(
        &mut self,
        at: RouteBackend,
        took: Duration,
    ) -> Result<(), DatapathError> {
        let Some(id) = self.id_of(at.index, at.address) else { return Ok(()) };
        let began = monotonic_ns().saturating_sub(took.as_nanos() as u64);
        if self.writer.counters.succeeded_ns(id)? >= began {
            return Ok(());
        }
        self.change_health(at, |health, now| health.agreed_on(now))
    }

    fn change_health(
        &mut self,
        at: RouteBackend,
        next: impl FnOnce(Health, u64) -> Health,
    ) -> Result<(), DatapathError> {
        let Some(id) = self.id_of(at.index, at.address) else { return Ok(()) };
        let now = monotonic_ns();
        change(&mut self.writer.health, (id, at.port), |health| next(health, now))
    }

    pub(crate) fn set_connect_timeout(
        &mut self,
        timeout: Duration,
        hz: u32,
    ) -> Result<(), DatapathError> {
        let timeout = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let control = read(&self.control, names::CONTROL, 0)?.with_connect_timeout(timeout, hz);
        write(&mut self.control, names::CONTROL, 0, control)
    }

    pub(crate) fn set_eject_on_reset(&mut self, eject: bool) -> Result<(), DatapathError> {
        let control = read(&self.control, names::CONTROL, 0)?;
        let flags = if eject { 0 } else { Control::KEEP_RESETTING };
        write(&mut self.control, names::CONTROL, 0, Control { flags, ..control })
    }

    pub(crate) fn set_event_sampling(&mut self, sampling: Option<u8>) -> Result<(), DatapathError> {
        let control = read(&self.control, names::CONTROL, 0)?;
        let sampling = sampling.map_or(Sampling::OFF, Sampling::with_ratio_log2);
        write(&mut self.control, names::CONTROL, 0, Control { sampling, ..control })
    }

    pub(crate) fn lost_events(&self) -> Result<u64, DatapathError> {
        read(&self.event_stats, names::EVENT_STATS, 0).map(|stats| stats.lost)
    }

    pub(crate) fn suppressed_events(&self) -> Result<u64, DatapathError> {
        let all: Vec<u32> = (0..event_budget::ELEMENTS).collect();
        let mut sum = 0_u64;
        read_each(&self.event_budgets, names::EVENT_BUDGETS, &all, |_, budget: EventBudget| {
            sum = sum.wrapping_add(budget.suppressed);
        })?;
        Ok(sum)
    }

    pub(crate) fn heartbeat(&mut self) -> Result<(), DatapathError> {
        self.state.heartbeat_ns = monotonic_ns();
        write(&mut self.agent, names::AGENT, 0, self.state)
    }
}
