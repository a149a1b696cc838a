//! The table of guests' interfaces: what the programs may do there, and what they count.

use aya::maps::{HashMap, MapData, MapError};
use redirector_common::{
    names,
    packet::interface::{Interface, InterfaceFlows},
};

use crate::datapath::{
    attach::interfaces::target::{InterfaceRole, InterfaceTarget},
    error::DatapathError,
    load::object::Object,
};

/// Writes an element that exists, and makes none (uapi/linux/bpf.h).
const BPF_EXIST: u64 = 2;

/// The table.
pub(crate) struct Elements {
    map: HashMap<MapData, u32, Interface>,
    flows: HashMap<MapData, u32, InterfaceFlows>,
}

impl Elements {
    pub(crate) fn open(object: &mut Object) -> Result<Self, DatapathError> {
        Ok(Self {
            map: object.hash(names::INTERFACES)?,
            flows: object.hash(names::INTERFACE_FLOWS)?,
        })
    }

    /// Writes what the programs may do on a guest's interface, and keeps what they have counted.
    /// The host's own interfaces have no element.
    pub(crate) fn set(&mut self, target: &InterfaceTarget) -> Result<(), DatapathError> {
        if target.role == InterfaceRole::Host {
            return self.remove(target.index);
        }
        let flags = flags(target);
        match self.get(target.index)? {
            Some(element) if element.flags == flags => Ok(()),
            present => self.write(target, Interface { flags, ..present.unwrap_or_default() }),
        }
    }

    /// As [`Elements::set`], for a new interface: an element that is there is of another one that
    /// had this index. That of its flows stays, with zeros: the programs run, and one may have
    /// begun.
    pub(crate) fn reset(&mut self, target: &InterfaceTarget) -> Result<(), DatapathError> {
        remove(&mut self.map, target.index)?;
        if_present(self.flows.insert(target.index, InterfaceFlows::default(), BPF_EXIST))?;
        match target.role {
            InterfaceRole::Host => Ok(()),
            InterfaceRole::Guest => {
                self.write(target, Interface { flags: flags(target), ..Interface::default() })
            }
        }
    }

    /// Counts established flows that were removed since they were idle.
    pub(crate) fn count_expired(&mut self, index: u32, flows: u64) -> Result<(), DatapathError> {
        let Some(element) = self.get(index)? else { return Ok(()) };
        let element = Interface { expired: element.expired + flows, ..element };
        self.map.insert(index, element, 0).map_err(|error| failed("write", error))
    }

    fn write(&mut self, target: &InterfaceTarget, element: Interface) -> Result<(), DatapathError> {
        self.map.insert(target.index, element, 0).map_err(|error| failed("write", error))
    }

    /// The element of an interface.
    pub(crate) fn get(&self, index: u32) -> Result<Option<Interface>, DatapathError> {
        read(&self.map, index)
    }

    /// Removes the elements of an interface, if there are any.
    pub(crate) fn remove(&mut self, index: u32) -> Result<(), DatapathError> {
        remove(&mut self.map, index)?;
        remove(&mut self.flows, index)
    }
}

fn remove<V: aya::Pod>(
    map: &mut HashMap<MapData, u32, V>,
    index: u32,
) -> Result<(), DatapathError> {
    if_present(map.remove(&index))
}

/// The result of a change to an element, which may be missing.
fn if_present(changed: Result<(), MapError>) -> Result<(), DatapathError> {
    match changed {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        Err(error) => Err(failed("write", error)),
    }
}

fn flags(target: &InterfaceTarget) -> u64 {
    if target.redirects { Interface::FLAG_REDIRECTS } else { 0 }
}

/// The element of an interface in `map`.
pub(crate) fn read(
    map: &HashMap<MapData, u32, Interface>,
    index: u32,
) -> Result<Option<Interface>, DatapathError> {
    match map.get(&index, 0) {
        Ok(element) => Ok(Some(element)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(failed("read", error)),
    }
}

fn failed(action: &str, error: MapError) -> DatapathError {
    DatapathError::call(format!("{action} the map {}", names::INTERFACES), error)
}
