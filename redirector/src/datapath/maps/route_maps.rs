//! The maps that define routes: entries, blocks of slots, and the IPv6 addresses that slots refer
//! to by ID. This module only reads and writes them; `route_layout` and `writer` determine their
//! content.

use aya::maps::{Array, MapData};
use redirector_common::{
    addr::Ip6Be,
    backend::BackendId,
    names,
    route::{RouteEntry, Slot},
};

use crate::datapath::{
    address,
    error::DatapathError,
    load::object::Object,
    maps::{
        arrays::{PartialWrite, read, read_each, write_all},
        route_layout::RouteBlock,
    },
    pins::layout::{Pins, open_pin},
};

/// The three maps. Each refers to elements of the next.
pub(crate) struct RouteMaps {
    entries: Array<MapData, RouteEntry>,
    slots: Array<MapData, Slot>,
    addresses6: Array<MapData, Ip6Be>,
}

/// Their names.
pub(crate) const NAMES: [&str; 3] = [names::ROUTES, names::SLOTS, names::BACKENDS6];

impl RouteMaps {
    /// Takes the maps out of a loaded object.
    pub(crate) fn from_object(object: &mut Object) -> Result<Self, DatapathError> {
        Ok(Self {
            entries: object.array(names::ROUTES)?,
            slots: object.array(names::SLOTS)?,
            addresses6: object.array(names::BACKENDS6)?,
        })
    }

    /// Opens the pinned maps.
    pub(crate) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            entries: open_pin(pins, names::ROUTES)?,
            slots: open_pin(pins, names::SLOTS)?,
            addresses6: open_pin(pins, names::BACKENDS6)?,
        })
    }

    /// From maps that a test has created.
    #[cfg(test)]
    pub(crate) fn new(
        entries: Array<MapData, RouteEntry>,
        slots: Array<MapData, Slot>,
        addresses6: Array<MapData, Ip6Be>,
    ) -> Self {
        Self { entries, slots, addresses6 }
    }

    /// The same maps, with descriptors of their own.
    #[cfg(test)]
    pub(crate) fn reopen(&self) -> Self {
        fn reopen<V: aya::Pod>(map: &Array<MapData, V>) -> Array<MapData, V> {
            let map = aya::maps::IterableMap::map(map);
            let data =
                MapData::from_id(map.info().expect("a map of this kernel").id()).expect("opened");
            Array::try_from(aya::maps::Map::Array(data)).expect("the same types")
        }
        Self {
            entries: reopen(&self.entries),
            slots: reopen(&self.slots),
            addresses6: reopen(&self.addresses6),
        }
    }

    /// The number of addresses in the pool.
    pub(crate) fn len(&self) -> u32 {
        self.entries.len()
    }

    pub(crate) fn entry(&self, index: u32) -> Result<RouteEntry, DatapathError> {
        read(&self.entries, names::ROUTES, index)
    }

    /// The routes among the first `size` entries, with their indices.
    pub(crate) fn present(&self, size: u32) -> Result<Vec<(u32, RouteEntry)>, DatapathError> {
        let (all, mut present) = ((0..size).collect::<Vec<_>>(), Vec::new());
        read_each(&self.entries, names::ROUTES, &all, |at, entry| {
            present.extend(entry.is_present().then_some((all[at], entry)))
        })?;
        Ok(present)
    }

    /// The block of an entry; `None` if it is damaged.
    pub(crate) fn block(&self, entry: RouteEntry) -> Result<Option<RouteBlock>, DatapathError> {
        let slot = |index| {
            if index < self.slots.len() {
                read(&self.slots, names::SLOTS, index).map(Some)
            } else {
                Ok(None)
            }
        };
        let address6 =
            |id: BackendId| Ok(address::from_ip6(read(&self.addresses6, names::BACKENDS6, id.0)?));
        RouteBlock::from_slots(entry, slot, address6)
    }

    /// Writes each entry in one store, which is in effect for the next connect to its address.
    pub(crate) fn set_entries(
        &mut self,
        entries: (&[u32], &[RouteEntry]),
    ) -> Result<(), PartialWrite> {
        write_all(&mut self.entries, names::ROUTES, entries)
    }

    pub(crate) fn set_slots(&mut self, slots: (&[u32], &[Slot])) -> Result<(), PartialWrite> {
        write_all(&mut self.slots, names::SLOTS, slots)
    }

    /// The addresses that do not fit into a slot, by ID.
    pub(crate) fn set_addresses(
        &mut self,
        addresses: (&[u32], &[Ip6Be]),
    ) -> Result<(), PartialWrite> {
        write_all(&mut self.addresses6, names::BACKENDS6, addresses)
    }
}
