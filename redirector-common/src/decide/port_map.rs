//! Which port of the destination a client's port stands for.

use super::{connect::Tables, lookup::Read, unroll::unrolled};
use crate::{addr::PortBe, route::RouteEntry};

/// Finds the destination's port for the client's `port`.
#[inline(always)]
pub(super) fn translate(tables: &(impl Tables + ?Sized), entry: RouteEntry, port: PortBe) -> Found {
    if entry.ports == 0 {
        return Found::at(port);
    }
    tables.find_port(
        Ports { first: entry.first(), count: u32::from(entry.ports), generation: entry.generation },
        port,
    )
}

/// The port pairs of a block.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// The first one's slot.
    pub first: u32,
    /// How many; no more than [`MAX_PORTS`](crate::abi::MAX_PORTS) are looked at.
    pub count: u32,
    /// The block's generation.
    pub generation: u8,
}

/// What [`find_port`] found, in one word: the destination's port in the low half, a [`Read`] in the
/// high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Found(pub u32);

impl Found {
    const STALE: Self = Self(Read::Stale.word() << 16);
    const NONE: Self = Self(Read::None.word() << 16);

    const fn at(port: PortBe) -> Self {
        Self(Read::Done.word() << 16 | port.0 as u32)
    }

    /// The destination's port, when [`Found::read`] says that there is one.
    pub const fn port(self) -> PortBe {
        PortBe(self.0 as u16)
    }

    /// What the search came to.
    pub const fn read(self) -> Read {
        Read::of_word(self.0 >> 16)
    }
}

/// Finds the pair for the port that the client asks for.
#[inline(always)]
pub fn find_port(tables: &(impl Tables + ?Sized), ports: Ports, client: PortBe) -> Found {
    unrolled!(offset in 0..16 {
        if offset >= ports.count {
            break;
        }
        let slot = tables.slot(ports.first.wrapping_add(offset));
        if slot.generation() != ports.generation {
            return Found::STALE;
        }
        if slot.client_port().0 == client.0 {
            return Found::at(slot.destination_port());
        }
    });
    Found::NONE
}
