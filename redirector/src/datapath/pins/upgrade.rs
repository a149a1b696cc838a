//! Upgrades from an older version's pins, map by map, while connects continue.
//!
//! A map with the same layout in both versions is *shared*: the same map in the kernel, pinned a
//! second time. The old programs and the new ones write the same counters, health and origins, so
//! nothing is copied and nothing is lost. The other maps are created; the readable routes of the
//! older version are copied into them, with the same backend IDs, and the agent's plan follows.
//!
//! All of that happens in `v<ABI>-new`, while the old programs serve. The commit is one rename,
//! before the links are swapped (`attach::links`); the old directory is removed last. If the agent
//! is killed before the rename, nothing has changed and the next start begins again; after it, the
//! next start finds the new maps and swaps the remaining links.
//!
//! The maps of another pool are replaced in the same way, and nothing is shared. If the two pools
//! do not overlap, the former programs stay attached beside the new ones with maps of their own,
//! for [`FORMER_POOL_TIME`](crate::datapath::FORMER_POOL_TIME).

use std::fs;

use redirector_common::{
    agent::AgentState,
    backend::{BackendId, Health},
    names,
    stats::BackendStats,
};
use tracing::debug;

use crate::{
    datapath::{
        error::{self, DatapathError},
        maps::{
            arrays::read,
            health_words::words,
            route_layout::RouteBlock,
            route_maps::{self, RouteMaps},
        },
        pins::{
            compat,
            layout::{Pins, open_pin},
            version::Version,
        },
        sys,
    },
    pool::Pool,
};

/// The maps with an element for each backend ID.
const BY_BACKEND: [&str; 3] = [names::HEALTH, names::BACKEND_STATS, names::BACKEND_TIMES];

/// An older version's maps.
pub(crate) struct Predecessor {
    pins: Pins,
    /// The state that its agent wrote last.
    pub(crate) state: AgentState,
    /// The maps that both versions share.
    shared: Vec<&'static str>,
    /// The maps with the same layout and meaning in both versions.
    compatible: Vec<&'static str>,
}

impl Predecessor {
    /// Reads the older version, and pins the maps that can be shared with it in `staged`.
    pub(crate) fn prepare(
        staged: &Pins,
        old: Pins,
        pool: &Pool,
        version: &Version,
    ) -> Result<Self, DatapathError> {
        let state = agent_state(&old)?.unwrap_or_default();
        // In another pool an index is another address.
        let is_other_pool = compat::is_other_pool(&state, pool);
        let compatible: Vec<&'static str> = names::MAPS
            .iter()
            .copied()
            .filter(|name| !is_other_pool && version.is_compatible(name, old.abi()))
            .collect();
        let specs = compat::expected(pool, version)?;
        let mut shared = Vec::new();
        for &name in &compatible {
            if compat::pinned(&old.map(name))?.as_ref() == specs.get(name) {
                shared.push(name);
            }
        }
        if !route_maps::NAMES.iter().all(|name| shared.contains(name)) {
            shared.retain(|name| !route_maps::NAMES.contains(name));
        }
        let mut predecessor = Self { pins: old, state, shared, compatible };
        if !predecessor.can_read_routes() {
            predecessor.shared.retain(|name| !BY_BACKEND.contains(name));
        }
        for name in &predecessor.shared {
            let sharing = |error| {
                DatapathError::call(format!("pin {name} at {}", staged.map(name).display()), error)
            };
            fs::hard_link(predecessor.pins.map(name), staged.map(name)).map_err(sharing)?;
            debug!(map = name, "shared with the older version");
        }
        Ok(predecessor)
    }

    /// The older version.
    pub(crate) fn abi(&self) -> u32 {
        self.pins.abi()
    }

    /// Whether its routes can be read.
    pub(crate) fn can_read_routes(&self) -> bool {
        route_maps::NAMES
            .iter()
            .all(|name| self.compatible.contains(name) && self.pins.map(name).exists())
    }

    /// Its routes, if they are not in shared maps.
    pub(crate) fn routes(&self) -> Result<Vec<(u32, RouteBlock)>, DatapathError> {
        if !self.can_read_routes() || self.shared.contains(&names::ROUTES) {
            return Ok(Vec::new());
        }
        let maps = RouteMaps::open(&self.pins)?;
        let mut found = Vec::new();
        for index in 0..maps.len() {
            let entry = maps.entry(index)?;
            if entry.is_present()
                && let Some(block) = maps.block(entry)?
            {
                found.push((index, block));
            }
        }
        Ok(found)
    }

    /// The words of a backend's health; none if they are in a shared map.
    pub(crate) fn health(&self, id: BackendId) -> Result<Vec<Health>, DatapathError> {
        if self.shared.contains(&names::HEALTH) || !self.compatible.contains(&names::HEALTH) {
            return Ok(Vec::new());
        }
        Ok(words(&open_pin(&self.pins, names::HEALTH)?, id)?.into())
    }

    /// A backend's counters, if they are not in a shared map.
    pub(crate) fn backend_stats(
        &self,
        id: BackendId,
    ) -> Result<Option<BackendStats>, DatapathError> {
        let name = names::BACKEND_STATS;
        if self.shared.contains(&name) || !self.compatible.contains(&name) {
            return Ok(None);
        }
        read(&open_pin(&self.pins, name)?, name, id.0).map(Some)
    }
}

/// The pins whose maps have to be replaced: those of an older version, or of another pool.
pub(crate) fn replaced(pins: &Pins, pool: &Pool) -> Result<Option<Pins>, DatapathError> {
    if !pins.exist()? {
        return Ok(pins.older().pop());
    }
    let state = agent_state(pins)?.unwrap_or_default();
    Ok(compat::is_other_pool(&state, pool).then(|| pins.clone()))
}

/// The state that an agent of any version wrote: its map begins with the same fields in each.
/// `None` if it is not pinned.
pub(crate) fn agent_state(pins: &Pins) -> Result<Option<AgentState>, DatapathError> {
    let path = pins.map(names::AGENT);
    let Some(spec) = compat::pinned(&path)? else { return Ok(None) };
    let reading = || format!("read the pinned map {}", path.display());
    let map = sys::open_pin(&path).map_err(|error| error::from_io(&reading(), error))?;
    let mut bytes =
        sys::element(&map, 0, spec.value()).map_err(|error| error::from_io(&reading(), error))?;
    bytes.resize(size_of::<AgentState>().max(bytes.len()), 0);
    // SAFETY: integers, for which any bytes are valid; there are at least as many as the type has.
    Ok(Some(unsafe { bytes.as_ptr().cast::<AgentState>().read_unaligned() }))
}
