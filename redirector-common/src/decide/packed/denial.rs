//! The kind of a connect that was not redirected, in one word.

use crate::event::EventKind;

/// The kind of a connect that was not redirected: the parts of its event that its hook knows.
///
/// | bits | content |
/// |---|---|
/// | 0–7 | [`EventKind`]: denied or passed |
/// | 8 | the client asked for the IPv6 VIP |
/// | 9 | the kernel had no memory to record the connect |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Denial(u32);

impl Denial {
    const VIP6_SHIFT: u32 = 8;
    const NO_MEMORY_SHIFT: u32 = 9;

    /// Packs the parts of the event.
    #[inline(always)]
    pub fn new(kind: EventKind, vip6: bool, no_memory: bool) -> Self {
        Self(
            kind as u32
                | u32::from(vip6) << Self::VIP6_SHIFT
                | u32::from(no_memory) << Self::NO_MEMORY_SHIFT,
        )
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

    /// The [`EventKind`]'s number.
    #[inline(always)]
    pub const fn kind(self) -> u8 {
        self.0 as u8
    }

    /// 1 when the client asked for the IPv6 VIP, else 0.
    #[inline(always)]
    pub const fn vip6(self) -> u8 {
        (self.0 >> Self::VIP6_SHIFT) as u8 & 1
    }

    /// Whether the kernel had no memory to record the connect.
    #[inline(always)]
    pub const fn is_no_memory(self) -> bool {
        self.0 & 1 << Self::NO_MEMORY_SHIFT != 0
    }
}
