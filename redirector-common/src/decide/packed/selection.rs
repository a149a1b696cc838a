//! The result of a selection in one word.

use super::{block_read::BlockRead, draw::Draw};
use crate::{addr::PortBe, route::RouteEntry};

/// The result of reading one route's block: a backend's slot, or none.
///
/// | bits | content |
/// |---|---|
/// | 0–23 | index of the backend's slot |
/// | 24–31 | generation of the block |
/// | 32–47 | the destination's port in network order |
/// | 48–55 | distance from the backend's slot to the options' slot; 0: no options |
/// | 56–57 | `BlockRead` |
/// | 58 | the route has another eligible backend |
/// | 59 | every backend is ejected |
/// | 60 | the connect is the backend's trial |
/// | 61 | 0 |
/// | 62 | [`RouteEntry::PASS`]: without a backend the connect is left alone |
/// | 63 | 0 |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Selection(u64);

impl Selection {
    const SLOT_MASK: u32 = 0x00ff_ffff;
    const GENERATION_SHIFT: u32 = 24;
    const PORT_SHIFT: u32 = 32;
    const OPTIONS_SHIFT: u32 = 48;
    const READ_SHIFT: u32 = 56;
    /// Moves the flags of a [`Draw`], bits 8 to 10, to bits 58 to 60.
    const DRAW_SHIFT: u32 = 50;
    /// Moves [`RouteEntry::PASS`], bit 1, to bit 62.
    const POLICY_SHIFT: u32 = 61;

    /// The bits of a slot's index that fit.
    #[inline(always)]
    pub(in crate::decide) const fn slot_bits(slot: u32) -> u32 {
        slot & Self::SLOT_MASK
    }

    /// The backend in `slot`, of a block of `generation`.
    #[inline(always)]
    pub(in crate::decide) const fn at(slot: u32, generation: u8) -> Self {
        Self(slot as u64 | (generation as u64) << Self::GENERATION_SHIFT)
    }

    /// With the destination's port.
    #[inline(always)]
    pub(in crate::decide) const fn with_port(self, port: PortBe) -> Self {
        Self(self.0 | (port.0 as u64) << Self::PORT_SHIFT)
    }

    /// With the number of slots, below 256, from the backend's to the options'.
    #[inline(always)]
    pub(in crate::decide) const fn with_options_distance(self, distance: u32) -> Self {
        Self(self.0 | (distance as u64) << Self::OPTIONS_SHIFT)
    }

    /// With the flags of the draw that led to the backend.
    #[inline(always)]
    pub(in crate::decide) const fn with_draw(self, draw: Draw) -> Self {
        Self(self.0 | (draw.flags() as u64) << Self::DRAW_SHIFT)
    }

    /// With the route's policy for connects without a backend.
    #[inline(always)]
    pub(in crate::decide) const fn with_policy(self, entry: RouteEntry) -> Self {
        Self(self.0 | Self::policy_bits(entry))
    }

    /// No backend; `read` is `BlockRead::Missing` or `BlockRead::Stale`.
    pub(in crate::decide) const fn none(read: BlockRead, entry: RouteEntry) -> Self {
        Self((read.to_bits() as u64) << Self::READ_SHIFT | Self::policy_bits(entry))
    }

    /// The fast path's backend, the only one of its route; of the fields only the port is set.
    pub(in crate::decide) const fn single(port: PortBe) -> Self {
        Self((port.0 as u64) << Self::PORT_SHIFT)
    }

    /// The fast path's backend, one of several eligible ones.
    pub(in crate::decide) const fn one_of_several(port: PortBe) -> Self {
        Self((Draw::ALTERNATIVE as u64) << Self::DRAW_SHIFT | Self::single(port).0)
    }

    const fn policy_bits(entry: RouteEntry) -> u64 {
        ((entry.policy & RouteEntry::PASS) as u64) << Self::POLICY_SHIFT
    }

    /// The word.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// From the word.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(in crate::decide) const fn slot(self) -> u32 {
        self.0 as u32 & Self::SLOT_MASK
    }

    pub(in crate::decide) const fn generation(self) -> u8 {
        (self.0 >> Self::GENERATION_SHIFT) as u8
    }

    pub(in crate::decide) const fn port(self) -> PortBe {
        PortBe((self.0 >> Self::PORT_SHIFT) as u16)
    }

    /// Slots from the backend's to the options'; 0: the route has no options.
    pub(in crate::decide) const fn options_distance(self) -> u32 {
        (self.0 >> Self::OPTIONS_SHIFT) as u8 as u32
    }

    pub(in crate::decide) const fn read(self) -> BlockRead {
        BlockRead::from_bits((self.0 >> Self::READ_SHIFT) as u32 & 3)
    }

    pub(in crate::decide) const fn draw(self) -> Draw {
        Draw::from_bits((self.0 >> Self::DRAW_SHIFT) as u32 & Draw::FLAGS)
    }

    /// Whether a connect without a backend is left alone.
    pub(in crate::decide) const fn passes(self) -> bool {
        self.0 >> Self::POLICY_SHIFT & RouteEntry::PASS as u64 != 0
    }
}
