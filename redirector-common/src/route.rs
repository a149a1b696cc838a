//! Routes as the programs see them: one 8-byte entry for each address of the pool, and blocks of
//! 8-byte slots that entries point to.
//!
//! Array elements of up to 8 bytes are read and written in one access; longer ones tear (65
//! thousand torn reads of 705 million, measured). So a block is written first, in slots that no
//! entry points to, and then the entry flips to it in one store. The generation stands in the entry
//! and in every slot: a program that read the entry just before a flip notices when the old block
//! is already somebody else's.

use crate::{
    addr::{Ip4Be, PortBe},
    backend::BackendId,
    table_type::table_type,
};

/// An element of a table as one word.
macro_rules! one_word {
    ($type:ty) => {
        impl $type {
            /// The eight bytes as a word.
            pub const fn to_bits(self) -> u64 {
                // SAFETY: eight bytes without padding.
                unsafe { core::mem::transmute(self) }
            }

            /// What the word was made of.
            pub const fn from_bits(word: u64) -> Self {
                // SAFETY: eight bytes without padding, and any value of each.
                unsafe { core::mem::transmute(word) }
            }
        }
    };
}

/// One address of the pool: where its block is. All zero: no route.
///
/// The block's slots, in this order: port pairs, IPv4 backends, IPv6 backends; and if
/// [`RouteEntry::OPTIONS`] is set, the options, then the IPv4 and the IPv6 source addresses that
/// they count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RouteEntry {
    /// The block's first slot in the low 24 bits, the number of its IPv6 backends in the high 8.
    pub block: u32,
    /// Port pairs in the block; 0 lets every port through, unchanged.
    pub ports: u8,
    /// IPv4 backends in the block.
    pub backends4: u8,
    /// Stands in every slot of the block too.
    pub generation: u8,
    /// See [`RouteEntry::PRESENT`], [`RouteEntry::PASS`] and [`RouteEntry::OPTIONS`].
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

    /// Where a block of `backends6` IPv6 backends begins, for [`RouteEntry::block`].
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

    /// Whether a route stands here that has from `least` to `most` IPv4 backends, IPv6 ones or not,
    /// no list of ports and no options.
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

    /// Whether a route stands at this address.
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

/// What a route may say beyond ports and backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteOptions {
    /// The load balancer's idle time-out in seconds; 0: none is known.
    pub idle_seconds: u16,
    /// IPv4 source addresses in the block.
    pub sources4: u8,
    /// IPv6 source addresses in the block.
    pub sources6: u8,
}

/// One slot of a block: a port pair, a backend, options or a source address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    /// An IPv4 address; or a port pair: the client's port in the low half, the destination's in the
    /// high half, both in network order; or options: seconds in the low half, then the number of
    /// IPv4 and of IPv6 sources.
    pub value: u32,
    /// The generation in the high 8 bits; the [`BackendId`] of a backend or of an IPv6 source
    /// address in the low 23; the bit between is set when the address is an IPv6 one, which stands
    /// in a table of its own.
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

    /// A backend or a source whose IPv6 address stands under its number.
    pub const fn v6(generation: u8, id: BackendId) -> Self {
        Self { value: 0, tag: tag(generation, id.0) | Self::IS_V6 }
    }

    /// A port pair.
    pub const fn port(generation: u8, client: PortBe, destination: PortBe) -> Self {
        Self { value: client.0 as u32 | (destination.0 as u32) << 16, tag: tag(generation, 0) }
    }

    /// RouteOptions.
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

    /// The number, when the slot holds a backend or a source.
    pub const fn id(self) -> BackendId {
        BackendId(self.tag & BackendId::MAX)
    }

    /// Whether the slot holds a backend or a source with an IPv6 address.
    pub const fn is_v6(self) -> bool {
        self.tag & Self::IS_V6 != 0
    }

    /// The address, when the slot holds an IPv4 backend or source.
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

    /// The options, when the slot holds them.
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
    fn a_slot_gives_back_what_it_was_made_of() {
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
    fn an_entry_says_where_each_part_of_its_block_begins() {
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
