//! Routes as the programs see them: one 8-byte entry for each address of the pool, and blocks of
//! 8-byte slots that entries point to.
//!
//! Array elements of up to 8 bytes are read and written in one access; reads of longer ones can be
//! torn (65 thousand of 705 million, measured). So a new block is written to slots that no entry
//! points to, and then the entry switches to it in one store. The entry and every slot of its block
//! hold the same generation: a program that read the entry before the switch detects slots that
//! already belong to another block.

use crate::{
    addr::{Ip4Be, PortBe},
    backend::BackendId,
    table_type::table_type,
};

/// Conversions of an 8-byte table element from and to one word.
macro_rules! one_word {
    ($type:ty) => {
        impl $type {
            /// The eight bytes as one word.
            pub const fn to_bits(self) -> u64 {
                // SAFETY: eight bytes without padding.
                unsafe { core::mem::transmute(self) }
            }

            /// The inverse of `to_bits`.
            pub const fn from_bits(word: u64) -> Self {
                // SAFETY: eight bytes without padding, each of which may have any value.
                unsafe { core::mem::transmute(word) }
            }
        }
    };
}

/// The route of one address of the pool, and where its block of slots is. All zero: no route.
///
/// The block's slots are, in this order: port pairs, IPv4 backends, IPv6 backends; with
/// [`RouteEntry::OPTIONS`] also the options, then the IPv4 and the IPv6 source addresses, whose
/// numbers are in the options.
///
/// | bits | field | content |
/// |---|---|---|
/// | 0–23 | `block` | index of the block's first slot |
/// | 24–31 | `block` | number of IPv6 backends |
/// | 32–39 | `ports` | number of port pairs |
/// | 40–47 | `backends4` | number of IPv4 backends |
/// | 48–55 | `generation` | the block's generation |
/// | 56–63 | `policy` | policy bits: `PRESENT`, `PASS`, `OPTIONS` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RouteEntry {
    /// First slot and number of IPv6 backends, packed by [`RouteEntry::block`].
    pub block: u32,
    /// Port pairs in the block; 0: every port is redirected, unchanged.
    pub ports: u8,
    /// IPv4 backends in the block.
    pub backends4: u8,
    /// The generation of the block, which each of its slots has too.
    pub generation: u8,
    /// Policy bits.
    pub policy: u8,
}
table_type!(RouteEntry, 8);
one_word!(RouteEntry);

impl RouteEntry {
    /// Policy bit: there is a route.
    pub const PRESENT: u8 = 1;
    /// Policy bit: a connect that can't be redirected is left alone instead of refused.
    pub const PASS: u8 = 2;
    /// Policy bit: the block has options.
    pub const OPTIONS: u8 = 4;

    const FIRST: u32 = 0x00ff_ffff;

    /// The first slot of a block and the number of its IPv6 backends, for the field `block`.
    pub const fn block(first: u32, backends6: u8) -> u32 {
        first & Self::FIRST | (backends6 as u32) << 24
    }

    /// The block's first slot.
    pub const fn first(self) -> u32 {
        self.block & Self::FIRST
    }

    /// IPv6 backends in the block.
    pub const fn backends6(self) -> u8 {
        (self.block >> 24) as u8
    }

    /// The first slot of the backends, of both families.
    pub const fn first_backend(self) -> u32 {
        self.first().wrapping_add(self.ports as u32)
    }

    /// The slot of the options.
    pub const fn options_slot(self) -> u32 {
        self.first_backend()
            .wrapping_add(self.backends4 as u32)
            .wrapping_add(self.backends6() as u32)
    }

    /// Whether there is a route with `least` to `most` IPv4 backends and any number of IPv6 ones,
    /// without port pairs and options.
    pub const fn is_simple_v4(self, least: u8, most: u8) -> bool {
        const MASK: u64 = RouteEntry {
            block: 0,
            ports: 0xff,
            backends4: 0,
            generation: 0,
            policy: !RouteEntry::PASS,
        }
        .to_bits();
        const PLAIN: u64 = RouteEntry {
            block: 0,
            ports: 0,
            backends4: 0,
            generation: 0,
            policy: RouteEntry::PRESENT,
        }
        .to_bits();
        self.to_bits() & MASK == PLAIN && self.backends4.wrapping_sub(least) <= most - least
    }

    /// Whether there is a route.
    pub const fn is_present(self) -> bool {
        self.policy & Self::PRESENT != 0
    }

    /// Whether a connect that can't be redirected is left alone.
    pub const fn passes(self) -> bool {
        self.policy & Self::PASS != 0
    }

    /// Whether the block has options.
    pub const fn has_options(self) -> bool {
        self.policy & Self::OPTIONS != 0
    }
}

/// The options of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteOptions {
    /// The load balancer's idle timeout in seconds; 0: unknown.
    pub idle_seconds: u16,
    /// IPv4 source addresses in the block.
    pub sources4: u8,
    /// IPv6 source addresses in the block.
    pub sources6: u8,
}

/// One slot of a block: a port pair, a backend, options or a source address.
///
/// | bits | field | content |
/// |---|---|---|
/// | 0–31 | `value` | backend or source: the IPv4 address in network order; 0 for an IPv6 one |
/// | | | port pair: 0–15 the client's port, 16–31 the destination's, in network order |
/// | | | options: 0–15 idle seconds, 16–23 and 24–31 number of IPv4 and IPv6 sources |
/// | 32–54 | `tag` | [`BackendId`] of a backend or a source, else 0 |
/// | 55 | `tag` | the backend or source has an IPv6 address, which is in a table of its own |
/// | 56–63 | `tag` | generation of the block |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    /// An IPv4 address, a port pair, or options.
    pub value: u32,
    /// Generation, address family and ID.
    pub tag: u32,
}
table_type!(Slot, 8);
one_word!(Slot);

impl Slot {
    const IS_V6: u32 = 1 << 23;

    /// A backend or a source at `address`.
    pub const fn v4(generation: u8, id: BackendId, address: Ip4Be) -> Self {
        Self { value: address.0, tag: tag(generation, id.0) }
    }

    /// A backend or a source whose IPv6 address is in the table of addresses, by ID.
    pub const fn v6(generation: u8, id: BackendId) -> Self {
        Self { value: 0, tag: tag(generation, id.0) | Self::IS_V6 }
    }

    /// A port pair.
    pub const fn port(generation: u8, client: PortBe, destination: PortBe) -> Self {
        Self { value: client.0 as u32 | (destination.0 as u32) << 16, tag: tag(generation, 0) }
    }

    /// The options of a route.
    pub const fn options(generation: u8, options: RouteOptions) -> Self {
        let value = options.idle_seconds as u32
            | (options.sources4 as u32) << 16
            | (options.sources6 as u32) << 24;
        Self { value, tag: tag(generation, 0) }
    }

    /// The generation of the block that this slot was written for.
    pub const fn generation(self) -> u8 {
        (self.tag >> 24) as u8
    }

    /// The ID of a backend or a source.
    pub const fn id(self) -> BackendId {
        BackendId(self.tag & BackendId::MAX)
    }

    /// Whether a backend or a source has an IPv6 address.
    pub const fn is_v6(self) -> bool {
        self.tag & Self::IS_V6 != 0
    }

    /// The address of an IPv4 backend or source.
    pub const fn address(self) -> Ip4Be {
        Ip4Be(self.value)
    }

    /// The port that the client asks for, of a port pair.
    pub const fn client_port(self) -> PortBe {
        PortBe(self.value as u16)
    }

    /// The destination's port, of a port pair.
    pub const fn destination_port(self) -> PortBe {
        PortBe((self.value >> 16) as u16)
    }

    /// The options, of a slot that holds them.
    pub const fn to_options(self) -> RouteOptions {
        RouteOptions {
            idle_seconds: self.value as u16,
            sources4: (self.value >> 16) as u8,
            sources6: (self.value >> 24) as u8,
        }
    }
}

const fn tag(generation: u8, id: u32) -> u32 {
    (generation as u32) << 24 | id & BackendId::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_round_trips() {
        let address = Ip4Be::from_octets([203, 0, 113, 7]);
        let backend = Slot::v4(250, BackendId(BackendId::MAX), address);
        assert_eq!(
            (backend.generation(), backend.id(), backend.address()),
            (250, BackendId(BackendId::MAX), address)
        );
        assert!(!backend.is_v6());
        let backend = Slot::v6(250, BackendId(BackendId::MAX));
        assert_eq!(
            (backend.generation(), backend.id(), backend.is_v6()),
            (250, BackendId(BackendId::MAX), true)
        );
        let port = Slot::port(3, PortBe::new(80), PortBe::new(8080));
        assert_eq!(
            (port.generation(), port.client_port().get(), port.destination_port().get()),
            (3, 80, 8080)
        );
        let options = RouteOptions { idle_seconds: 32_767, sources4: 9, sources6: 6 };
        assert_eq!(
            (Slot::options(7, options).generation(), Slot::options(7, options).to_options()),
            (7, options)
        );
    }

    #[test]
    fn an_entry_locates_each_part_of_its_block() {
        let entry = RouteEntry {
            block: RouteEntry::block(0x12_3456, 3),
            ports: 2,
            backends4: 5,
            generation: 1,
            policy: RouteEntry::OPTIONS,
        };
        assert_eq!((entry.first(), entry.backends6()), (0x12_3456, 3));
        assert_eq!((entry.first_backend(), entry.options_slot()), (0x12_3458, 0x12_3460));
        assert!(entry.has_options() && !entry.is_present() && !entry.passes());
    }
}
