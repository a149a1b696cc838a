//! Routes as the programs see them: one 8-byte entry for each address of the pool, and blocks of 8-byte slots that entries point to.
//!
//! Array elements of up to 8 bytes are read and written in one access; longer ones tear (65 thousand torn reads of 705 million, measured).
//! So a block is written first, in slots that no entry points to, and then the entry flips to it in one store. The generation stands in
//! the entry and in every slot: a program that read the entry just before a flip notices when the old block is already somebody else's.

use crate::{
    addr::{Ip4Be, PortBe},
    backend::BackendId,
    table_type,
};

/// One address of the pool: where its block is. All zero: no route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RouteEntry {
    /// The block's first slot: first the port pairs, then the backends.
    pub first: u32,
    /// Port pairs in the block; 0 lets every port through, unchanged.
    pub ports: u8,
    /// Backends in the block.
    pub backends: u8,
    /// Stands in every slot of the block too.
    pub generation: u8,
    /// See [`RouteEntry::PRESENT`] and [`RouteEntry::PASS`].
    pub policy: u8,
}
table_type!(RouteEntry, 8);

impl RouteEntry {
    /// Policy bit: there is a route.
    pub const PRESENT: u8 = 1;
    /// Policy bit: a connect that can't be redirected is left alone instead of refused.
    pub const PASS: u8 = 2;

    /// Whether a route stands at this address.
    pub const fn is_present(self) -> bool {
        self.policy & Self::PRESENT != 0
    }

    /// Whether a connect that can't be redirected is left alone.
    pub const fn passes(self) -> bool {
        self.policy & Self::PASS != 0
    }
}

/// One slot of a block: a port pair or a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    /// A backend's IPv4 address, or a port pair: the client's port in the low half, the destination's in the high half, both in network order.
    pub value: u32,
    /// The generation in the high 8 bits; a backend's [`BackendId`] in the low 24.
    pub tag: u32,
}
table_type!(Slot, 8);

impl Slot {
    /// A backend at `address`.
    pub const fn backend(generation: u8, id: BackendId, address: Ip4Be) -> Self {
        Self { value: address.0, tag: tag(generation, id.0) }
    }

    /// A port pair.
    pub const fn port(generation: u8, client: PortBe, destination: PortBe) -> Self {
        Self { value: client.0 as u32 | (destination.0 as u32) << 16, tag: tag(generation, 0) }
    }

    /// The generation of the block that this slot was written for.
    pub const fn generation(self) -> u8 {
        (self.tag >> 24) as u8
    }

    /// The backend's number, when the slot holds a backend.
    pub const fn id(self) -> BackendId {
        BackendId(self.tag & BackendId::MAX)
    }

    /// The backend's address, when the slot holds a backend.
    pub const fn address(self) -> Ip4Be {
        Ip4Be(self.value)
    }

    /// The port that the client asks for, when the slot holds a port pair.
    pub const fn client_port(self) -> PortBe {
        PortBe(self.value as u16)
    }

    /// The destination's port, when the slot holds a port pair.
    pub const fn destination_port(self) -> PortBe {
        PortBe((self.value >> 16) as u16)
    }
}

const fn tag(generation: u8, id: u32) -> u32 {
    (generation as u32) << 24 | id & BackendId::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_gives_back_what_it_was_made_of() {
        let address = Ip4Be::from_octets([203, 0, 113, 7]);
        let backend = Slot::backend(250, BackendId(BackendId::MAX), address);
        assert_eq!((backend.generation(), backend.id(), backend.address()), (250, BackendId(BackendId::MAX), address));
        let port = Slot::port(3, PortBe::new(80), PortBe::new(8080));
        assert_eq!((port.generation(), port.client_port().get(), port.destination_port().get()), (3, 80, 8080));
    }
}
