//! One reading of a route's block: which port, which backend. Everything in words, since a value
//! that is kept costs, see [`super::Choice`].

use super::{
    balance::{Candidates, Drawing, Families, draw, zero_bit},
    connect::{Client, Tables},
    port_map::translate,
};
use crate::{addr::PortBe, backend::BackendId, route::RouteEntry};

/// A [`Client`] in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Asked(pub u64);

impl Asked {
    const SIX_FIRST: u32 = 16;
    const BOTH: u32 = 17;
    const LAST: u32 = 32;

    /// Of what a client asked.
    #[inline(always)]
    pub fn new(client: &impl Client) -> Self {
        let Families { six_first, both } = client.families();
        Self(
            u64::from(client.port().0)
                | u64::from(six_first) << Self::SIX_FIRST
                | u64::from(both) << Self::BOTH
                | u64::from(client.last().0) << Self::LAST,
        )
    }

    /// The port.
    #[inline(always)]
    pub const fn port(self) -> PortBe {
        PortBe(self.0 as u16)
    }

    /// With the destination's port, and with the family that the backend will have.
    #[inline(always)]
    const fn settled(self, port: PortBe, six: u32) -> Self {
        Self(self.0 & 0xffff_ffff_0000_0000 | (six as u64) << Self::SIX_FIRST | port.0 as u64)
    }

    /// 1 for IPv6 backends, once it is settled.
    #[inline(always)]
    const fn six(self) -> u32 {
        (self.0 >> Self::SIX_FIRST) as u32 & 1
    }

    /// `if six_first { !(both && there are no IPv6 ones) } else { both && there are no IPv4 ones }`,
    /// in arithmetic.
    #[inline(always)]
    const fn prefers_six(self, entry: RouteEntry) -> u32 {
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
    const GENERATION: u32 = 24;
    const PORT: u32 = 32;
    /// Slots from the backend's to the options'.
    const OPTIONS: u32 = 48;
    const READ: u32 = 56;
    /// The flags of a [`Drawing`] are moved here.
    const DRAWING: u32 = 50;
    /// [`RouteEntry::PASS`] is moved here.
    const POLICY: u32 = 61;

    const fn passing(entry: RouteEntry) -> Self {
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

    const fn nowhere(read: Read, entry: RouteEntry) -> Self {
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

/// One reading of the block of route `index`: the port and the backend.
#[inline(always)]
pub fn pick(tables: &(impl Tables + ?Sized), index: u32, asked: Asked) -> Pick {
    let asked = Asked(tables.afresh(asked.0));
    let entry = tables.route(index);
    if !entry.is_present() {
        return Pick::nowhere(Read::None, RouteEntry::default());
    }
    let found = translate(tables, entry, asked.port());
    if found.read() != Read::Done {
        return Pick::nowhere(found.read(), entry);
    }
    let mut known = Known { entry, asked: asked.settled(found.port(), asked.prefers_six(entry)) };
    known.afresh(tables);
    if known.candidates().count == 0 {
        return Pick::nowhere(Read::None, known.entry);
    }
    let drawing = draw(tables, &mut known);
    known.afresh(tables);
    if drawing.is_stale() {
        return Pick::nowhere(Read::Stale, known.entry);
    }
    let Known { entry, asked } = known;
    let slot = known.candidates().first.wrapping_add(drawing.offset()) & 0x00ff_ffff;
    let options =
        if entry.has_options() { entry.options_slot().wrapping_sub(slot) & 0xff } else { 0 };
    Pick(
        u64::from(slot)
            | u64::from(entry.generation) << Pick::GENERATION
            | u64::from(asked.port().0) << Pick::PORT
            | u64::from(options) << Pick::OPTIONS
            | u64::from(drawing.0 & Drawing::FLAGS) << Pick::DRAWING
            | Pick::passing(entry).0,
    )
}

/// What is known of a route and of its client while its block is read: two words.
///
/// After each look at a table everything is worked out [`afresh`](Known::afresh) from them: a value
/// that is kept over it would be stored on the stack, and that costs more, see [`super::Choice`].
pub(super) struct Known {
    pub(super) entry: RouteEntry,
    pub(super) asked: Asked,
}

impl Known {
    #[inline(always)]
    pub(super) fn afresh(&mut self, tables: &(impl Tables + ?Sized)) {
        self.entry = RouteEntry::of_word(tables.afresh(self.entry.word()));
        self.asked = Asked(tables.afresh(self.asked.0));
    }

    /// The backends of the family that was settled on.
    #[inline(always)]
    pub(super) fn candidates(&self) -> Candidates {
        let (four, six) = (u32::from(self.entry.backends4), u32::from(self.entry.backends6()));
        // All ones for IPv6, or 0.
        let mask = self.asked.six().wrapping_neg();
        Candidates {
            first: self.entry.first_backend().wrapping_add(four & mask),
            count: four ^ (four ^ six) & mask,
            generation: self.entry.generation,
        }
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
