//! Comparing pinned tables with the ones that this binary would make. aya reuses a pinned table without looking at it; a value that is larger
//! in the kernel than here would be written past the end of our buffer.

use aya::maps::MapInfo;
use redirector_common::{
    addr::Ip6Be,
    agent::{AgentState, Control},
    backend::Health,
    names,
    origin::Origin,
    route::{RouteEntry, Slot},
    stats::{BackendStats, RouteStats},
};

use super::{DatapathError, object, pins::Pins};
use crate::vip::Pool;

/// Type and sizes of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// `enum bpf_map_type`.
    map_type: u32,
    key: u32,
    value: u32,
    entries: u32,
}

const ARRAY: u32 = 2;
const SK_STORAGE: u32 = 24;

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "type {}, {}-byte keys, {}-byte values, {} entries", self.map_type, self.key, self.value, self.entries)
    }
}

/// Refuses pinned tables that this binary would not make. The pool is compared by its size here, by its address when the tables are open.
pub(super) fn compare(pins: &Pins, pool: &Pool) -> Result<(), DatapathError> {
    for name in names::MAPS {
        let path = pins.map(name);
        if !path.exists() {
            continue;
        }
        let info =
            MapInfo::from_pin(&path).map_err(|error| DatapathError::call(format!("read the pinned table {}", path.display()), error))?;
        let map_type = info.map_type().map_err(|error| DatapathError::call(format!("read the type of {}", path.display()), error))?;
        let found = Shape { map_type: map_type as u32, key: info.key_size(), value: info.value_size(), entries: info.max_entries() };
        let ours = expected(name, pool);
        if found != ours {
            return Err(DatapathError::OtherShape { path, found: found.to_string(), ours: ours.to_string() });
        }
    }
    Ok(())
}

fn expected(name: &str, pool: &Pool) -> Shape {
    let value = match name {
        names::ROUTES => size_of::<RouteEntry>(),
        names::SLOTS => size_of::<Slot>(),
        names::HEALTH => size_of::<Health>(),
        names::ROUTE_STATS => size_of::<RouteStats>(),
        names::BACKEND_STATS => size_of::<BackendStats>(),
        names::ORIGINS => size_of::<Origin>(),
        names::BACKENDS6 => size_of::<Ip6Be>(),
        names::CONTROL => size_of::<Control>(),
        _ => size_of::<AgentState>(),
    } as u32;
    let map_type = if name == names::ORIGINS { SK_STORAGE } else { ARRAY };
    let sized = object::sizes(pool).into_iter().find(|(sized, _)| *sized == name);
    let entries = match sized {
        Some((_, entries)) => entries,
        None => u32::from(name != names::ORIGINS),
    };
    Shape { map_type, key: 4, value, entries }
}
