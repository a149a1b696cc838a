//! The input of a port lookup, and its result in one word.

use super::block_read::BlockRead;
use crate::addr::PortBe;

/// The port pairs of a block.
#[derive(Clone, Copy, Debug)]
pub struct PortPairs {
    /// Index of the first one's slot.
    pub first: u32,
    /// Their number; only the first [`MAX_PORTS`](crate::abi::MAX_PORTS) are considered.
    pub count: u32,
    /// The block's generation.
    pub generation: u8,
}

/// The result of looking up a client's port.
///
/// | bits | content |
/// |---|---|
/// | 0–15 | the destination's port in network order, when found |
/// | 16–17 | `BlockRead` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct PortLookup(u32);

impl PortLookup {
    const READ_SHIFT: u32 = 16;
    /// The block was replaced while it was read.
    pub(in crate::decide) const STALE: Self = Self(BlockRead::Stale.to_bits() << Self::READ_SHIFT);
    /// The route does not list the port.
    pub(in crate::decide) const MISSING: Self =
        Self(BlockRead::Missing.to_bits() << Self::READ_SHIFT);

    /// The destination's port.
    pub(in crate::decide) const fn found(port: PortBe) -> Self {
        Self(BlockRead::Found.to_bits() << Self::READ_SHIFT | port.0 as u32)
    }

    /// The word.
    #[inline(always)]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// From the word.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The destination's port, valid when `PortLookup::read` is `BlockRead::Found`.
    pub(in crate::decide) const fn port(self) -> PortBe {
        PortBe(self.0 as u16)
    }

    pub(in crate::decide) const fn read(self) -> BlockRead {
        BlockRead::from_bits(self.0 >> Self::READ_SHIFT)
    }
}
