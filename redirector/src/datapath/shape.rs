//! Comparing pinned tables with the ones that this binary would make. aya reuses a pinned table
//! without looking at it; a value that is larger in the kernel than here would be written past the
//! end of our buffer.

use std::{collections::BTreeMap, path::Path};

use aya::maps::MapInfo;
use redirector_common::names;

use super::{DatapathError, object, pins::Pins, version::Version};
use crate::pool::Pool;

/// Type and sizes of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// `enum bpf_map_type`.
    map_type: u32,
    key: u32,
    value: u32,
    entries: u32,
}

impl Shape {
    /// Bytes of an element.
    pub(super) fn value(&self) -> usize {
        self.value as usize
    }
}

/// `BPF_MAP_TYPE_RINGBUF`: its size is in bytes, and a power of two of pages.
const RING_BUFFER: u32 = 27;

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "type {}, {}-byte keys, {}-byte values, {} entries",
            self.map_type, self.key, self.value, self.entries
        )
    }
}

/// The tables that this binary would make for `pool`, by name.
pub(super) fn expected(
    pool: &Pool,
    version: &Version,
) -> Result<BTreeMap<&'static str, Shape>, DatapathError> {
    let object = object::parse()?;
    let sizes = object::sizes(pool, version);
    let page = rustix::param::page_size() as u32;
    let shape = |name: &&'static str| {
        let map = object.maps.get(*name).ok_or_else(|| {
            DatapathError::call(format!("find the table {name} in the object"), "not there")
        })?;
        let entries = sizes
            .iter()
            .find(|(sized, _)| sized == name)
            .map_or(map.max_entries(), |(_, entries)| *entries);
        let entries = if map.map_type() == RING_BUFFER {
            entries.next_power_of_two().max(page)
        } else {
            entries
        };
        Ok((
            *name,
            Shape {
                map_type: map.map_type(),
                key: map.key_size(),
                value: map.value_size(),
                entries,
            },
        ))
    };
    names::MAPS.iter().map(shape).collect()
}

/// The pinned table at `path`; nothing when there is none.
pub(super) fn pinned(path: &Path) -> Result<Option<Shape>, DatapathError> {
    if !path.exists() {
        return Ok(None);
    }
    let info = MapInfo::from_pin(path).map_err(|error| {
        DatapathError::call(format!("read the pinned table {}", path.display()), error)
    })?;
    let map_type = info.map_type().map_err(|error| {
        DatapathError::call(format!("read the type of {}", path.display()), error)
    })?;
    Ok(Some(Shape {
        map_type: map_type as u32,
        key: info.key_size(),
        value: info.value_size(),
        entries: info.max_entries(),
    }))
}

/// Refuses pinned tables that this binary would not make. The pool is compared by its size here, by
/// its address when the tables are open.
pub(super) fn compare(pins: &Pins, pool: &Pool, version: &Version) -> Result<(), DatapathError> {
    for (name, ours) in expected(pool, version)? {
        let path = pins.map(name);
        if let Some(found) = pinned(&path)?
            && found != ours
        {
            return Err(DatapathError::OtherShape {
                path,
                found: found.to_string(),
                ours: ours.to_string(),
            });
        }
    }
    Ok(())
}
