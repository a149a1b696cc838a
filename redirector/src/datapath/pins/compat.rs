//! Compares pinned maps with those that this binary would create. aya reuses a pinned map without
//! checking it; a value that is larger in the kernel than here would be written beyond the end of
//! our buffer.

use std::{collections::BTreeMap, path::Path};

use aya::maps::MapInfo;
use aya_obj::generated::bpf_map_type;
use ipnet::{Ipv4Net, Ipv6Net};
use redirector_common::{agent::AgentState, names};

use crate::{
    datapath::{
        address,
        error::{DatapathError, from_ebpf},
        load::object,
        pins::{layout::Pins, version::Version},
    },
    pool::Pool,
};

/// The type and the sizes of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapSpec {
    /// `enum bpf_map_type`.
    map_type: u32,
    key: u32,
    value: u32,
    entries: u32,
}

impl MapSpec {
    /// The size of a value in bytes.
    pub(crate) fn value(&self) -> usize {
        self.value as usize
    }
}

impl std::fmt::Display for MapSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "type {}, {}-byte keys, {}-byte values, {} entries",
            self.map_type, self.key, self.value, self.entries
        )
    }
}

/// The maps that this binary would create for `pool`, by name.
pub(crate) fn expected(
    pool: &Pool,
    version: &Version,
) -> Result<BTreeMap<&'static str, MapSpec>, DatapathError> {
    let object = object::parse()?;
    let sizes = object::map_sizes(pool, version);
    let page = rustix::param::page_size() as u32;
    let spec = |name: &&'static str| {
        let map = object.maps.get(*name).ok_or_else(|| {
            DatapathError::call(format!("find the map {name} in the object"), "not there")
        })?;
        let entries = sizes
            .iter()
            .find(|(sized, _)| sized == name)
            .map_or(map.max_entries(), |(_, entries)| *entries);
        let entries = if map.map_type() == bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32 {
            // Bytes: the loader rounds them up to a power of two, and at least a page.
            entries.next_power_of_two().max(page)
        } else {
            entries
        };
        Ok((
            *name,
            MapSpec {
                map_type: map.map_type(),
                key: map.key_size(),
                value: map.value_size(),
                entries,
            },
        ))
    };
    names::MAPS.iter().map(spec).collect()
}

/// What the kernel knows of the pinned map at `path`, which exists.
pub(crate) fn map_info(path: &Path) -> Result<MapInfo, DatapathError> {
    MapInfo::from_pin(path).map_err(|error| {
        from_ebpf(&format!("read the pinned map {}", path.display()), error.into())
    })
}

/// The pinned map at `path`; `None` if there is none.
pub(crate) fn pinned(path: &Path) -> Result<Option<MapSpec>, DatapathError> {
    if !path.exists() {
        return Ok(None);
    }
    let info = map_info(path)?;
    let map_type = info.map_type().map_err(|error| {
        DatapathError::call(format!("read the type of {}", path.display()), error)
    })?;
    Ok(Some(MapSpec {
        map_type: map_type as u32,
        key: info.key_size(),
        value: info.value_size(),
        entries: info.max_entries(),
    }))
}

/// Refuses pinned maps that this binary would not create. This compares the pool by its size;
/// [`refuse_other_pool`] compares its addresses.
pub(crate) fn compare(pins: &Pins, pool: &Pool, version: &Version) -> Result<(), DatapathError> {
    for (name, ours) in expected(pool, version)? {
        let path = pins.map(name);
        if let Some(found) = pinned(&path)?
            && found != ours
        {
            return Err(DatapathError::MapMismatch {
                path,
                found: found.to_string(),
                ours: ours.to_string(),
            });
        }
    }
    Ok(())
}

/// Whether maps are of another pool.
pub(crate) fn is_other_pool(found: &AgentState, pool: &Pool) -> bool {
    refuse_other_pool(found, pool).is_err()
}

/// Refuses maps of another pool.
pub(crate) fn refuse_other_pool(found: &AgentState, pool: &Pool) -> Result<(), DatapathError> {
    if found.abi == 0 {
        return Ok(());
    }
    let prefix = found.pool_prefix.min(32) as u8;
    let network = Ipv4Net::new_assert(found.pool_base.octets().into(), prefix).trunc();
    if network != pool.ipv4.trunc() {
        return Err(DatapathError::PoolMismatch {
            found: network.into(),
            wanted: pool.ipv4.trunc().into(),
        });
    }
    // An IPv6 pool may be added or removed, since no map contains its addresses. Another one would
    // change the VIPs.
    let network = Ipv6Net::new_assert(address::from_ip6(found.pool6_base), 96 + prefix).trunc();
    match pool.ipv6.map(|net| net.trunc()) {
        Some(wanted) if !found.pool6_base.is_unspecified() && wanted != network => {
            Err(DatapathError::PoolMismatch { found: network.into(), wanted: wanted.into() })
        }
        _ => Ok(()),
    }
}
