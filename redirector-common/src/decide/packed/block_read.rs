//! The result of reading a part of a block, in two bits.

/// The result of reading a part of a block; it is two bits of other packed words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::decide) enum BlockRead {
    /// The part is there.
    Found,
    /// The block has no such part.
    Missing,
    /// The block was replaced while it was read.
    Stale,
}

impl BlockRead {
    pub(super) const fn to_bits(self) -> u32 {
        self as u32
    }

    pub(super) const fn from_bits(bits: u32) -> Self {
        match bits {
            0 => Self::Found,
            1 => Self::Missing,
            _ => Self::Stale,
        }
    }
}
