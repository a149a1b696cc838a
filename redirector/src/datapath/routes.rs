//! The tables that say what a route is: entries, blocks of slots, and the IPv6 addresses that slots name by number. Here they are only read and
//! written; what goes where is the business of `tables` and `placed`.

use std::net::IpAddr;

use aya::maps::{Array, MapData};
use redirector_common::{
    addr::Ip6Be,
    backend::BackendId,
    names,
    route::{RouteEntry, Slot},
};

use super::{
    DatapathError,
    object::{self, Object},
    pins::Pins,
    placed::Placed,
    tables::{read, write},
};

/// The three tables. They belong together: each names what stands in the next.
pub(super) struct RouteTables {
    entries: Array<MapData, RouteEntry>,
    slots: Array<MapData, Slot>,
    addresses6: Array<MapData, Ip6Be>,
}

/// Their names.
pub(super) const NAMES: [&str; 3] = [names::ROUTES, names::SLOTS, names::BACKENDS6];

impl RouteTables {
    /// Those of a loaded object.
    pub(super) fn of(object: &mut Object) -> Result<Self, DatapathError> {
        Ok(Self { entries: object.array(names::ROUTES)?, slots: object.array(names::SLOTS)?, addresses6: object.array(names::BACKENDS6)? })
    }

    /// Those that are pinned.
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            entries: object::open_pin(pins, names::ROUTES)?,
            slots: object::open_pin(pins, names::SLOTS)?,
            addresses6: object::open_pin(pins, names::BACKENDS6)?,
        })
    }

    /// How many addresses the pool has.
    pub(super) fn len(&self) -> u32 {
        self.entries.len()
    }

    pub(super) fn entry(&self, index: u32) -> Result<RouteEntry, DatapathError> {
        read(&self.entries, names::ROUTES, index)
    }

    /// The block that an entry points to; nothing when it is damaged.
    pub(super) fn block(&self, entry: RouteEntry) -> Result<Option<Placed>, DatapathError> {
        let slot = |index| if index < self.slots.len() { read(&self.slots, names::SLOTS, index).map(Some) } else { Ok(None) };
        let address6 = |id: BackendId| Ok(object::from_ip6(read(&self.addresses6, names::BACKENDS6, id.0)?));
        Placed::read(entry, slot, address6)
    }

    /// In one store: the next connect sees it.
    pub(super) fn set_entry(&mut self, index: u32, entry: RouteEntry) -> Result<(), DatapathError> {
        write(&mut self.entries, names::ROUTES, index, entry)
    }

    pub(super) fn set_slot(&mut self, index: u32, slot: Slot) -> Result<(), DatapathError> {
        write(&mut self.slots, names::SLOTS, index, slot)
    }

    /// The address behind a number, where it does not fit in a slot.
    pub(super) fn set_address(&mut self, id: BackendId, address: IpAddr) -> Result<(), DatapathError> {
        match address {
            IpAddr::V4(_) => Ok(()),
            IpAddr::V6(address) => write(&mut self.addresses6, names::BACKENDS6, id.0, object::ip6(address)),
        }
    }
}
