//! Words that decisions hand on, each with its layout.

use super::select_bit::zero_bit;
use crate::{abi::MAX_BACKENDS, addr::PortBe, backend::BackendId, route::RouteEntry};

/// Which addresses a connect can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// The client asked for an IPv6 address (not an IPv4-mapped one), so IPv6 backends come first.
    pub six_first: bool,
    /// The socket is one for both families: a route that has none of the family asked for serves it
    /// with the other. An `AF_INET` socket is not, nor is one that is bound to an address.
    pub both: bool,
}

impl Families {
    /// An `AF_INET` socket.
    pub const ONLY4: Self = Self { six_first: false, both: false };
}

/// The backends of one family in a block.
#[derive(Clone, Copy, Debug)]
pub struct Candidates {
    /// The first one's slot.
    pub first: u32,
    /// How many; no more than [`MAX_BACKENDS`] are looked at.
    pub count: u32,
    /// The block's generation.
    pub generation: u8,
}

/// What a survey starts from.
#[derive(Clone, Copy, Debug)]
pub struct Drawn {
    /// The place of the first draw's backend among the candidates.
    pub offset: u32,
    /// The last backend of this socket.
    pub last: BackendId,
}

/// Which candidate a connect gets, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Drawing(pub u32);

impl Drawing {
    pub(super) const OFFSET: u32 = MAX_BACKENDS as u32 - 1;
    pub(super) const ANOTHER: u32 = 0x100;
    pub(super) const DESPERATE: u32 = 0x200;
    pub(super) const TRIAL: u32 = 0x400;
    pub(super) const STALE: Self = Self(0x800);
    /// What it says beside the place.
    pub(super) const FLAGS: u32 = Self::ANOTHER | Self::DESPERATE | Self::TRIAL;

    /// Its place among the candidates.
    pub const fn offset(self) -> u32 {
        self.0 & Self::OFFSET
    }

    /// See [`super::Choice::another`].
    pub const fn another(self) -> bool {
        self.0 & Self::ANOTHER != 0
    }

    /// See [`super::Choice::desperate`].
    pub const fn desperate(self) -> bool {
        self.0 & Self::DESPERATE != 0
    }

    /// See [`super::Choice::trial`].
    pub const fn trial(self) -> bool {
        self.0 & Self::TRIAL != 0
    }

    /// The block was replaced meanwhile; the rest says nothing.
    pub const fn is_stale(self) -> bool {
        self.0 & Self::STALE.0 != 0
    }
}

/// A [`Client`] in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Asked(pub u64);

impl Asked {
    pub(super) const SIX_FIRST: u32 = 16;
    pub(super) const BOTH: u32 = 17;
    pub(super) const LAST: u32 = 32;

    /// Of what a client asked.
    #[inline(always)]
    pub fn new(port: PortBe, families: Families, last: BackendId) -> Self {
        let Families { six_first, both } = families;
        Self(
            u64::from(port.0)
                | u64::from(six_first) << Self::SIX_FIRST
                | u64::from(both) << Self::BOTH
                | u64::from(last.0) << Self::LAST,
        )
    }

    /// The port.
    #[inline(always)]
    pub const fn port(self) -> PortBe {
        PortBe(self.0 as u16)
    }

    /// With the destination's port, and with the family that the backend will have.
    #[inline(always)]
    pub(super) const fn settled(self, port: PortBe, six: u32) -> Self {
        Self(self.0 & 0xffff_ffff_0000_0000 | (six as u64) << Self::SIX_FIRST | port.0 as u64)
    }

    /// 1 for IPv6 backends, once it is settled.
    #[inline(always)]
    pub(super) const fn six(self) -> u32 {
        (self.0 >> Self::SIX_FIRST) as u32 & 1
    }

    /// `if six_first { !(both && there are no IPv6 ones) } else { both && there are no IPv4 ones }`,
    /// in arithmetic.
    #[inline(always)]
    pub(super) const fn prefers_six(self, entry: RouteEntry) -> u32 {
        let (six_first, both) = ((self.0 >> Self::SIX_FIRST) as u32, (self.0 >> Self::BOTH) as u32);
        let (no_four, no_six) =
            (zero_bit(entry.backends4 as u32) as u32, zero_bit(entry.backends6() as u32) as u32);
        (six_first & !(both & no_six) | !six_first & both & no_four) & 1
    }

    #[inline(always)]
    pub(super) const fn last(self) -> BackendId {
        BackendId((self.0 >> Self::LAST) as u32)
    }
}

/// Where a reading of a route's block led, in one word: to a backend's slot, or nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Pick(pub u64);

impl Pick {
    pub(super) const GENERATION: u32 = 24;
    pub(super) const PORT: u32 = 32;
    /// Slots from the backend's to the options'.
    pub(super) const OPTIONS: u32 = 48;
    pub(super) const READ: u32 = 56;
    /// The flags of a [`Drawing`] are moved here.
    pub(super) const DRAWING: u32 = 50;
    /// [`RouteEntry::PASS`] is moved here.
    pub(super) const POLICY: u32 = 61;

    pub(super) const fn passing(entry: RouteEntry) -> Self {
        Self(((entry.policy & RouteEntry::PASS) as u64) << Self::POLICY)
    }

    /// The only backend of a route that says nothing of ports and options: all that is to know is
    /// the port.
    pub(super) const fn only(port: PortBe) -> Self {
        Self((port.0 as u64) << Self::PORT)
    }

    /// The same for one of several.
    pub(super) const fn one_of(port: PortBe) -> Self {
        Self((port.0 as u64) << Self::PORT | (Drawing::ANOTHER as u64) << Self::DRAWING)
    }

    pub(super) const fn nowhere(read: Read, entry: RouteEntry) -> Self {
        Self((read.word() as u64) << Self::READ | Self::passing(entry).0)
    }

    pub(super) const fn slot(self) -> u32 {
        self.0 as u32 & 0x00ff_ffff
    }

    pub(super) const fn generation(self) -> u8 {
        (self.0 >> Self::GENERATION) as u8
    }

    pub(super) const fn port(self) -> PortBe {
        PortBe((self.0 >> Self::PORT) as u16)
    }

    pub(super) const fn options(self) -> u32 {
        (self.0 >> Self::OPTIONS) as u8 as u32
    }

    pub(super) const fn read(self) -> Read {
        Read::of_word((self.0 >> Self::READ) as u32 & 3)
    }

    pub(super) const fn drawing(self) -> Drawing {
        Drawing((self.0 >> Self::DRAWING) as u32 & Drawing::FLAGS)
    }

    pub(super) const fn passes(self) -> bool {
        self.0 >> Self::POLICY & RouteEntry::PASS as u64 != 0
    }
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
    pub(super) const STALE: Self = Self(Read::Stale.word() << 16);
    pub(super) const NONE: Self = Self(Read::None.word() << 16);

    pub(super) const fn at(port: PortBe) -> Self {
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

/// What reading a part of a block came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Read {
    /// It is there.
    Done,
    /// It is not there.
    None,
    /// The block was replaced under the reader.
    Stale,
}

impl Read {
    pub(super) const fn word(self) -> u32 {
        self as u32
    }

    pub(super) const fn of_word(word: u32) -> Self {
        match word {
            0 => Self::Done,
            1 => Self::None,
            _ => Self::Stale,
        }
    }
}
