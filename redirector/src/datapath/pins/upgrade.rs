//! Taking over from an older version's pins, table by table, while connects go on.
//!
//! A table that has not changed since the version that made it is *shared*: the same table in the
//! kernel, pinned a second time. The old programs and the new ones write the same counters, health
//! and origins, so nothing has to be copied and nothing is lost. The other tables are made anew;
//! what can be read of the old routes goes into them, with the same backend numbers, and the
//! agent's own plan follows.
//!
//! All of that happens aside, in `v<ABI>-new`, while the old programs serve. The commit is one
//! rename, when the links are swapped ([`crate::datapath::attach::links`]); the old folder goes last. Whoever is
//! killed before the rename has changed nothing, and the next start begins anew; after it, the next
//! start finds new tables and goes on swapping.

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

/// The tables that speak of backends by number.
const BY_NUMBER: [&str; 3] = [names::HEALTH, names::BACKEND_STATS, names::BACKEND_TIMES];

/// An older version's tables.
pub(crate) struct Predecessor {
    pins: Pins,
    /// What its agent wrote last.
    pub(crate) state: AgentState,
    /// The tables that are ours now too.
    shared: Vec<&'static str>,
    /// The tables that mean the same to us.
    understood: Vec<&'static str>,
}

impl Predecessor {
    /// Finds the youngest of the older versions, and prepares `staged` for the tables that can be
    /// shared with it.
    pub(crate) fn prepare(
        staged: &Pins,
        old: Pins,
        pool: &Pool,
        version: &Version,
    ) -> Result<Self, DatapathError> {
        let state = agent_state(&old)?.unwrap_or_default();
        compat::refuse_other_pool(&state, pool)?;
        let understood: Vec<&'static str> = names::MAPS
            .iter()
            .copied()
            .filter(|name| version.understands(name, old.abi()))
            .collect();
        let specs = compat::expected(pool, version)?;
        let mut shared = Vec::new();
        for &name in &understood {
            if compat::pinned(&old.map(name))?.as_ref() == specs.get(name) {
                shared.push(name);
            }
        }
        if !route_maps::NAMES.iter().all(|name| shared.contains(name)) {
            shared.retain(|name| !route_maps::NAMES.contains(name));
        }
        let mut predecessor = Self { pins: old, state, shared, understood };
        if !predecessor.can_read_routes() {
            predecessor.shared.retain(|name| !BY_NUMBER.contains(name));
        }
        for name in &predecessor.shared {
            let sharing = |error| {
                DatapathError::call(format!("pin {name} at {}", staged.map(name).display()), error)
            };
            fs::hard_link(predecessor.pins.map(name), staged.map(name)).map_err(sharing)?;
            debug!(table = name, "shared with the older version");
        }
        Ok(predecessor)
    }

    /// Which version it is.
    pub(crate) fn abi(&self) -> u32 {
        self.pins.abi()
    }

    /// Whether its routes can be read.
    pub(crate) fn can_read_routes(&self) -> bool {
        route_maps::NAMES
            .iter()
            .all(|name| self.understood.contains(name) && self.pins.map(name).exists())
    }

    /// Its routes, where they are not in shared tables.
    pub(crate) fn routes(&self) -> Result<Vec<(u32, RouteBlock)>, DatapathError> {
        if !self.can_read_routes() || self.shared.contains(&names::ROUTES) {
            return Ok(Vec::new());
        }
        let tables = RouteMaps::open(&self.pins)?;
        let mut found = Vec::new();
        for index in 0..tables.len() {
            let entry = tables.entry(index)?;
            if entry.is_present()
                && let Some(block) = tables.block(entry)?
            {
                found.push((index, block));
            }
        }
        Ok(found)
    }

    /// A backend's health, where it is not in a shared table.
    pub(crate) fn health(&self, id: BackendId) -> Result<Option<Health>, DatapathError> {
        self.element(names::HEALTH, id)
    }

    /// A backend's counters, where they are not in a shared table.
    pub(crate) fn backend_stats(
        &self,
        id: BackendId,
    ) -> Result<Option<BackendStats>, DatapathError> {
        self.element(names::BACKEND_STATS, id)
    }

    fn element<V: aya::Pod>(&self, name: &str, id: BackendId) -> Result<Option<V>, DatapathError> {
        if self.shared.contains(&name) || !self.understood.contains(&name) {
            return Ok(None);
        }
        read(&open_pin(&self.pins, name)?, name, id.0).map(Some)
    }
}

/// What the agent of any version wrote of itself: its table begins with the same fields in each.
/// Nothing when it is not pinned.
pub(crate) fn agent_state(pins: &Pins) -> Result<Option<AgentState>, DatapathError> {
    let path = pins.map(names::AGENT);
    let Some(spec) = compat::pinned(&path)? else { return Ok(None) };
    let reading = || format!("read the pinned table {}", path.display());
    let table = sys::open_pin(&path).map_err(|error| error::from_io(&reading(), error))?;
    let mut bytes =
        sys::element(&table, 0, spec.value()).map_err(|error| error::from_io(&reading(), error))?;
    bytes.resize(size_of::<AgentState>().max(bytes.len()), 0);
    // SAFETY: plain data of integers, for which any bytes are good; there are at least as many as
    // it has.
    Ok(Some(unsafe { bytes.as_ptr().cast::<AgentState>().read_unaligned() }))
}
