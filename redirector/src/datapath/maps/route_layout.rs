//! One route in the maps: its parts, and the slots of its block. Pure: the caller allocates slots
//! and backend IDs.

use std::{
    net::{IpAddr, Ipv6Addr},
    ops::Range,
    time::Duration,
};

use redirector_common::{
    addr::{Ip4Be, PortBe},
    backend::BackendId,
    route::{RouteEntry, RouteOptions, Slot},
};

use crate::{
    plan::PlannedRoute,
    route::{OnNoBackend, PortPair},
};

/// An address and its ID. An IPv4 source has none ([`BackendId::NONE`]): its slot holds the
/// address.
pub(crate) type IdentifiedAddr = (IpAddr, BackendId);

/// A route in the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteBlock {
    pub(crate) entry: RouteEntry,
    pub(crate) ports: Vec<PortPair>,
    /// IPv4 ones first.
    pub(crate) backends: Vec<IdentifiedAddr>,
    /// IPv4 ones first.
    pub(crate) sources: Vec<IdentifiedAddr>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) on_no_backend: OnNoBackend,
}

impl RouteBlock {
    /// The slots of its block.
    pub(crate) fn slot_range(&self) -> Range<u32> {
        let options = if self.entry.has_options() { 1 + self.sources.len() } else { 0 };
        self.entry.first()..self.entry.options_slot() + options as u32
    }

    pub(crate) fn to_planned(&self) -> PlannedRoute {
        PlannedRoute {
            ports: self.ports.clone(),
            backends: Some(self.backends.iter().map(|&(address, _)| address).collect()),
            on_no_backend: self.on_no_backend,
            sources: self.sources.iter().map(|&(address, _)| address).collect(),
            idle_timeout: self.idle_timeout,
        }
    }

    /// The IDs that it uses.
    pub(crate) fn ids(&self) -> impl Iterator<Item = BackendId> {
        self.identified_addrs().map(|(_, id)| id)
    }

    /// The addresses that have an ID.
    pub(crate) fn identified_addrs(&self) -> impl Iterator<Item = IdentifiedAddr> {
        self.backends.iter().chain(&self.sources).copied().filter(|&(_, id)| id != BackendId::NONE)
    }

    /// Its options, if it needs a slot for them.
    fn options(&self) -> Option<RouteOptions> {
        let sources6 = self.sources.iter().filter(|(address, _)| address.is_ipv6()).count();
        let options = RouteOptions {
            idle_seconds: self
                .idle_timeout
                .map_or(0, |timeout| u16::try_from(timeout.as_secs()).unwrap_or(u16::MAX)),
            sources4: (self.sources.len() - sources6) as u8,
            sources6: sources6 as u8,
        };
        (options != RouteOptions::default()).then_some(options)
    }

    /// The number of slots that it needs.
    pub(crate) fn slot_count(&self) -> u32 {
        let options = if self.options().is_some() { 1 + self.sources.len() } else { 0 };
        (self.ports.len() + self.backends.len() + options) as u32
    }

    /// Sets the entry for a block at `first`, and returns the slots to write there.
    pub(crate) fn layout(&mut self, first: u32, generation: u8) -> Vec<Slot> {
        let backends6 = self.backends.iter().filter(|(address, _)| address.is_ipv6()).count();
        let pass = if self.on_no_backend == OnNoBackend::Pass { RouteEntry::PASS } else { 0 };
        let options = self.options();
        let has_options = if options.is_some() { RouteEntry::OPTIONS } else { 0 };
        self.entry = RouteEntry {
            block: RouteEntry::block(first, backends6 as u8),
            ports: self.ports.len() as u8,
            backends4: (self.backends.len() - backends6) as u8,
            generation,
            policy: RouteEntry::PRESENT | pass | has_options,
        };
        let slot = |&(address, id): &IdentifiedAddr| match address {
            IpAddr::V4(address) => Slot::v4(generation, id, Ip4Be::from_octets(address.octets())),
            IpAddr::V6(_) => Slot::v6(generation, id),
        };
        let ports = self.ports.iter().map(|pair| {
            Slot::port(generation, PortBe::new(pair.client), PortBe::new(pair.destination))
        });
        let options = options.map(|options| Slot::options(generation, options));
        ports
            .chain(self.backends.iter().map(slot))
            .chain(options)
            .chain(self.sources.iter().map(slot))
            .collect()
    }

    /// Reads a block. `None` if it is damaged: a slot is missing or has another generation.
    pub(crate) fn from_slots<E>(
        entry: RouteEntry,
        slot: impl Fn(u32) -> Result<Option<Slot>, E>,
        address6: impl Fn(BackendId) -> Result<Ipv6Addr, E>,
    ) -> Result<Option<Self>, E> {
        let slots = |range: Range<u32>| -> Result<Option<Vec<Slot>>, E> {
            let mut found = Vec::new();
            for index in range {
                match slot(index)? {
                    Some(slot) if slot.generation() == entry.generation => found.push(slot),
                    _ => return Ok(None),
                }
            }
            Ok(Some(found))
        };
        let identified = |slots: Vec<Slot>| -> Result<Vec<IdentifiedAddr>, E> {
            let address = |slot: Slot| match slot.is_v6() {
                true => Ok((IpAddr::from(address6(slot.id())?), slot.id())),
                false => Ok((IpAddr::from(slot.address().octets()), slot.id())),
            };
            let mut identified: Vec<IdentifiedAddr> =
                slots.into_iter().map(address).collect::<Result<_, E>>()?;
            // The list lives as long as the route, and most have one or two addresses.
            identified.shrink_to_fit();
            Ok(identified)
        };
        let Some(ports) = slots(entry.first()..entry.first_backend())? else { return Ok(None) };
        let Some(backends) = slots(entry.first_backend()..entry.options_slot())? else {
            return Ok(None);
        };
        let mut options = RouteOptions::default();
        let mut sources = Vec::new();
        if entry.has_options() {
            let at = entry.options_slot();
            let Some(found) = slots(at..at + 1)? else { return Ok(None) };
            options = found[0].to_options();
            let count = u32::from(options.sources4) + u32::from(options.sources6);
            let Some(found) = slots(at + 1..at + 1 + count)? else { return Ok(None) };
            sources = identified(found)?;
        }
        let pair = |slot: Slot| PortPair {
            client: slot.client_port().get(),
            destination: slot.destination_port().get(),
        };
        Ok(Some(Self {
            entry,
            ports: ports.into_iter().map(pair).collect(),
            backends: identified(backends)?,
            sources,
            idle_timeout: (options.idle_seconds != 0)
                .then(|| Duration::from_secs(options.idle_seconds.into())),
            on_no_backend: if entry.passes() { OnNoBackend::Pass } else { OnNoBackend::Refuse },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entry: RouteEntry, first: u32, slots: &[Slot]) -> Option<RouteBlock> {
        let slot = |index: u32| {
            Ok::<_, ()>(
                index.checked_sub(first).and_then(|offset| slots.get(offset as usize).copied()),
            )
        };
        RouteBlock::from_slots(entry, slot, |id| {
            Ok(Ipv6Addr::from_bits(0xfd << 120 | u128::from(id.0)))
        })
        .expect("no error")
    }

    #[test]
    fn a_block_is_read_back_unless_it_is_damaged() {
        let six = |id: u32| {
            (IpAddr::from(Ipv6Addr::from_bits(0xfd << 120 | u128::from(id))), BackendId(id))
        };
        let four = |last: u8, id: u32| (IpAddr::from([203, 0, 113, last]), BackendId(id));
        let whole = RouteBlock {
            entry: RouteEntry::default(),
            ports: vec![PortPair { client: 80, destination: 8080 }],
            backends: vec![four(7, 1), four(8, 2), six(3)],
            sources: vec![four(1, 0), six(4), six(5)],
            idle_timeout: Some(Duration::from_secs(350)),
            on_no_backend: OnNoBackend::Pass,
        };
        let bare = RouteBlock { sources: vec![], idle_timeout: None, ..whole.clone() };
        for (mut block, length) in [(whole, 8), (bare, 4)] {
            let slots = block.layout(100, 9);
            assert_eq!(
                (block.slot_count(), slots.len() as u32, block.slot_range()),
                (length, length, 100..100 + length)
            );
            assert_eq!(read(block.entry, 100, &slots), Some(block.clone()));
            let mut damaged = slots.clone();
            *damaged.last_mut().expect("slots") = Slot::v4(8, BackendId(1), Ip4Be::default());
            assert_eq!(read(block.entry, 100, &damaged), None);
            assert_eq!(read(block.entry, 100, &slots[1..]), None);
        }
    }
}
