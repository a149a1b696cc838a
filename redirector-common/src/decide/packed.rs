//! Packed words: what one step of a decision passes to the next, and what global functions take
//! and return. Each type documents its layout and hides it behind constructors and accessors.
//!
//! They are packed since a value that lives across a call is spilled to the stack, and a kernel
//! that loads programs without CAP_PERFMON puts a speculation barrier behind the first store to
//! each stack slot. One word stays in one register. Global functions take and return integers
//! only: pointers need 5.12.
//!
//! Flags are set and tested by arithmetic where a branch would be one more state for the verifier.

use super::select_bit::zero_bit;
use crate::{
    abi::MAX_BACKENDS, addr::PortBe, backend::BackendId, event::EventKind, route::RouteEntry,
};

/// Which address families a connect can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// The client asked for an IPv6 address (not an IPv4-mapped one), so IPv6 backends come first.
    pub prefer_v6: bool,
    /// The socket can use both families: a route without backends of the preferred family serves
    /// it with the other. False for an `AF_INET` socket and for one bound to an address.
    pub dual_stack: bool,
}

impl Families {
    /// An `AF_INET` socket.
    pub const V4_ONLY: Self = Self { prefer_v6: false, dual_stack: false };
}

/// What a client asks for, and what its socket got last.
///
/// | bits | content |
/// |---|---|
/// | 0–15 | the client's port in network order; once resolved, the destination's |
/// | 16 | prefers IPv6; once resolved, the backend is an IPv6 one |
/// | 17 | dual stack; once resolved, 0 |
/// | 18–31 | 0 |
/// | 32–63 | [`BackendId`] that this socket was sent to last |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ClientKey(u64);

impl ClientKey {
    const V6_SHIFT: u32 = 16;
    const DUAL_STACK_SHIFT: u32 = 17;
    const LAST_SHIFT: u32 = 32;
    const LAST_MASK: u64 = 0xffff_ffff_0000_0000;

    /// Packs a client's port, its families and the last backend of its socket.
    #[inline(always)]
    pub fn new(port: PortBe, families: Families, last: BackendId) -> Self {
        let Families { prefer_v6, dual_stack } = families;
        Self(
            u64::from(port.0)
                | u64::from(prefer_v6) << Self::V6_SHIFT
                | u64::from(dual_stack) << Self::DUAL_STACK_SHIFT
                | u64::from(last.0) << Self::LAST_SHIFT,
        )
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

    /// The word as two arguments of a global function, the lower half first.
    #[inline(always)]
    pub const fn halves(self) -> (u32, u32) {
        (self.0 as u32, (self.0 >> 32) as u32)
    }

    /// The inverse of [`ClientKey::halves`].
    #[inline(always)]
    pub const fn from_halves(lower: u32, upper: u32) -> Self {
        Self(lower as u64 | (upper as u64) << 32)
    }

    /// The client's port; once resolved, the destination's.
    #[inline(always)]
    pub const fn port(self) -> PortBe {
        PortBe(self.0 as u16)
    }

    /// The last backend of this socket ([`BackendId::NONE`]: none).
    #[inline(always)]
    pub(super) const fn last(self) -> BackendId {
        BackendId((self.0 >> Self::LAST_SHIFT) as u32)
    }

    /// With the destination's port, and the family that the backend will have (1: IPv6).
    #[inline(always)]
    pub(super) const fn resolved(self, port: PortBe, v6: u32) -> Self {
        Self(self.0 & Self::LAST_MASK | (v6 as u64) << Self::V6_SHIFT | port.0 as u64)
    }

    /// 1 when the backend is an IPv6 one, else 0. Valid once resolved.
    #[inline(always)]
    pub(super) const fn v6_bit(self) -> u32 {
        (self.0 >> Self::V6_SHIFT) as u32 & 1
    }

    /// The family to resolve to in the block of `entry`, 1 for IPv6:
    /// `if prefer_v6 { !(dual_stack && no_v6) } else { dual_stack && no_v4 }`, in arithmetic.
    #[inline(always)]
    pub(super) const fn choose_v6(self, entry: RouteEntry) -> u32 {
        let (prefer_v6, dual_stack) =
            ((self.0 >> Self::V6_SHIFT) as u32, (self.0 >> Self::DUAL_STACK_SHIFT) as u32);
        let (no_v4, no_v6) =
            (zero_bit(entry.backends4 as u32) as u32, zero_bit(entry.backends6() as u32) as u32);
        (prefer_v6 & !(dual_stack & no_v6) | !prefer_v6 & dual_stack & no_v4) & 1
    }
}

/// The result of reading one route's block: a backend's slot, or none.
///
/// | bits | content |
/// |---|---|
/// | 0–23 | index of the backend's slot |
/// | 24–31 | generation of the block |
/// | 32–47 | the destination's port in network order |
/// | 48–55 | distance from the backend's slot to the options' slot; 0: no options |
/// | 56–57 | [`BlockRead`] |
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
    pub(super) const fn slot_bits(slot: u32) -> u32 {
        slot & Self::SLOT_MASK
    }

    /// The backend in `slot`, of a block of `generation`.
    #[inline(always)]
    pub(super) const fn at(slot: u32, generation: u8) -> Self {
        Self(slot as u64 | (generation as u64) << Self::GENERATION_SHIFT)
    }

    /// With the destination's port.
    #[inline(always)]
    pub(super) const fn with_port(self, port: PortBe) -> Self {
        Self(self.0 | (port.0 as u64) << Self::PORT_SHIFT)
    }

    /// With the number of slots, below 256, from the backend's to the options'.
    #[inline(always)]
    pub(super) const fn with_options_distance(self, distance: u32) -> Self {
        Self(self.0 | (distance as u64) << Self::OPTIONS_SHIFT)
    }

    /// With the flags of the draw that led to the backend.
    #[inline(always)]
    pub(super) const fn with_draw(self, draw: Draw) -> Self {
        Self(self.0 | (draw.flags() as u64) << Self::DRAW_SHIFT)
    }

    /// With the route's policy for connects without a backend.
    #[inline(always)]
    pub(super) const fn with_policy(self, entry: RouteEntry) -> Self {
        Self(self.0 | Self::policy_bits(entry))
    }

    /// No backend, since the block is [`BlockRead::Missing`] a part or is [`BlockRead::Stale`].
    pub(super) const fn none(read: BlockRead, entry: RouteEntry) -> Self {
        Self((read.to_bits() as u64) << Self::READ_SHIFT | Self::policy_bits(entry))
    }

    /// The fast path's backend, the only one of its route: only the port is of interest.
    pub(super) const fn single(port: PortBe) -> Self {
        Self((port.0 as u64) << Self::PORT_SHIFT)
    }

    /// The fast path's backend, one of several eligible ones.
    pub(super) const fn one_of_several(port: PortBe) -> Self {
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

    pub(super) const fn slot(self) -> u32 {
        self.0 as u32 & Self::SLOT_MASK
    }

    pub(super) const fn generation(self) -> u8 {
        (self.0 >> Self::GENERATION_SHIFT) as u8
    }

    pub(super) const fn port(self) -> PortBe {
        PortBe((self.0 >> Self::PORT_SHIFT) as u16)
    }

    /// Slots from the backend's to the options'; 0: the route has no options.
    pub(super) const fn options_distance(self) -> u32 {
        (self.0 >> Self::OPTIONS_SHIFT) as u8 as u32
    }

    pub(super) const fn read(self) -> BlockRead {
        BlockRead::from_bits((self.0 >> Self::READ_SHIFT) as u32 & 3)
    }

    pub(super) const fn draw(self) -> Draw {
        Draw((self.0 >> Self::DRAW_SHIFT) as u32 & Draw::FLAGS)
    }

    /// Whether a connect without a backend is left alone.
    pub(super) const fn passes(self) -> bool {
        self.0 >> Self::POLICY_SHIFT & RouteEntry::PASS as u64 != 0
    }
}

/// Which candidate a connect gets.
///
/// | bits | content |
/// |---|---|
/// | 0–5 | offset among the candidates, below [`MAX_BACKENDS`] |
/// | 8 | another candidate is eligible |
/// | 9 | every candidate is ejected |
/// | 10 | the connect is the candidate's trial |
/// | 11 | the block was replaced while it was read; the rest is meaningless |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Draw(u32);

impl Draw {
    const OFFSET: u32 = MAX_BACKENDS as u32 - 1;
    const ALTERNATIVE: u32 = 1 << 8;
    const ALL_EJECTED: u32 = 1 << 9;
    const TRIAL: u32 = 1 << 10;
    const FLAGS: u32 = Self::ALTERNATIVE | Self::ALL_EJECTED | Self::TRIAL;
    /// The block was replaced while it was read.
    pub(super) const STALE: Self = Self(1 << 11);

    /// The first candidate, with the flag for another eligible one if there is an `alternative`.
    #[inline(always)]
    pub(super) const fn new(alternative: bool) -> Self {
        Self(if alternative { Self::ALTERNATIVE } else { 0 })
    }

    /// The first candidate's flags with another candidate's offset, below [`MAX_BACKENDS`].
    #[inline(always)]
    pub(super) const fn at(self, offset: u32) -> Self {
        Self(offset | self.0)
    }

    /// With the flag that every candidate is ejected.
    #[inline(always)]
    pub(super) const fn with_all_ejected(self) -> Self {
        Self(self.0 | Self::ALL_EJECTED)
    }

    /// With the flag for a trial.
    #[inline(always)]
    pub(super) const fn with_trial(self) -> Self {
        Self(self.0 | Self::TRIAL)
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

    /// The candidate's offset.
    pub(super) const fn offset(self) -> u32 {
        self.0 & Self::OFFSET
    }

    const fn flags(self) -> u32 {
        self.0 & Self::FLAGS
    }

    /// See [`super::Backend::has_alternative`].
    pub(super) const fn has_alternative(self) -> bool {
        self.0 & Self::ALTERNATIVE != 0
    }

    /// See [`super::Backend::all_ejected`].
    pub(super) const fn all_ejected(self) -> bool {
        self.0 & Self::ALL_EJECTED != 0
    }

    /// See [`super::Backend::is_trial`].
    pub(super) const fn is_trial(self) -> bool {
        self.0 & Self::TRIAL != 0
    }

    pub(super) const fn is_stale(self) -> bool {
        self.0 & Self::STALE.0 != 0
    }
}

/// The backends of one family in a block.
///
/// Beside `first`, a global function takes them as one word:
///
/// | bits | content |
/// |---|---|
/// | 0–7 | count |
/// | 8–15 | generation |
#[derive(Clone, Copy, Debug)]
pub struct Candidates {
    /// Index of the first one's slot.
    pub first: u32,
    /// How many there are; at most [`MAX_BACKENDS`] are considered.
    pub count: u32,
    /// The block's generation.
    pub generation: u8,
}

impl Candidates {
    /// Count and generation in one word.
    #[inline(always)]
    pub fn shape(self) -> u32 {
        self.count | u32::from(self.generation) << 8
    }

    /// From the first slot and [`Candidates::shape`].
    #[inline(always)]
    pub const fn from_shape(first: u32, shape: u32) -> Self {
        Self { first, count: shape & 0xff, generation: (shape >> 8) as u8 }
    }
}

/// What the second draw starts from.
#[derive(Clone, Copy, Debug)]
pub struct DrawInput {
    /// Offset of the first draw's candidate.
    pub offset: u32,
    /// The last backend of this socket.
    pub last: BackendId,
}

impl DrawInput {
    /// The offset, which is below [`MAX_BACKENDS`] whatever the caller passed.
    #[inline(always)]
    pub(super) const fn offset(self) -> u32 {
        self.offset & Draw::OFFSET
    }
}

/// The port pairs of a block.
#[derive(Clone, Copy, Debug)]
pub struct PortPairs {
    /// Index of the first one's slot.
    pub first: u32,
    /// How many there are; at most [`MAX_PORTS`](crate::abi::MAX_PORTS) are considered.
    pub count: u32,
    /// The block's generation.
    pub generation: u8,
}

/// The result of looking up a client's port.
///
/// | bits | content |
/// |---|---|
/// | 0–15 | the destination's port in network order, when found |
/// | 16–17 | [`BlockRead`] |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct PortLookup(u32);

impl PortLookup {
    const READ_SHIFT: u32 = 16;
    /// The block was replaced while it was read.
    pub(super) const STALE: Self = Self(BlockRead::Stale.to_bits() << Self::READ_SHIFT);
    /// The route does not list the port.
    pub(super) const MISSING: Self = Self(BlockRead::Missing.to_bits() << Self::READ_SHIFT);

    /// The destination's port.
    pub(super) const fn found(port: PortBe) -> Self {
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

    /// The destination's port, valid when [`PortLookup::read`] is [`BlockRead::Found`].
    pub(super) const fn port(self) -> PortBe {
        PortBe(self.0 as u16)
    }

    pub(super) const fn read(self) -> BlockRead {
        BlockRead::from_bits(self.0 >> Self::READ_SHIFT)
    }
}

/// The result of reading a part of a block; two bits of other words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum BlockRead {
    /// The part is there.
    Found,
    /// The block has no such part.
    Missing,
    /// The block was replaced while it was read.
    Stale,
}

impl BlockRead {
    const fn to_bits(self) -> u32 {
        self as u32
    }

    const fn from_bits(bits: u32) -> Self {
        match bits {
            0 => Self::Found,
            1 => Self::Missing,
            _ => Self::Stale,
        }
    }
}

/// How a connect was not redirected.
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

    /// Packs what the event of a connect that is not redirected reports.
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
