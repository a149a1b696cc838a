//! Which backend a connect gets: uniform over the eligible ones of the right family, not the one
//! that this socket tried last.

use super::{connect::Tables, lookup::Known, select_bit, unroll::unrolled};
use crate::{
    abi::MAX_BACKENDS,
    addr::Ip6Be,
    backend::{BackendId, Health},
    route::Slot,
};

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

impl Candidates {
    /// One of them. Another generation's when the block was replaced meanwhile.
    #[inline(always)]
    fn get(self, tables: &(impl Tables + ?Sized), offset: u32) -> Slot {
        tables.slot(self.first.wrapping_add(offset))
    }
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
    const OFFSET: u32 = MAX_BACKENDS as u32 - 1;
    pub(super) const ANOTHER: u32 = 0x100;
    const DESPERATE: u32 = 0x200;
    const TRIAL: u32 = 0x400;
    const STALE: Self = Self(0x800);
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

/// Draws one of `candidates`, of which there is at least one, avoiding `last` while another one is
/// eligible.
///
/// A first draw is taken as it is when it is eligible: with all healthy, that is one random number
/// and a look at its neighbour, which tells that there is another. Otherwise the eligible ones are
/// counted and, if the first draw was none, one of them is drawn; together the two draws are
/// uniform over the eligible.
#[inline(always)]
pub(super) fn draw(tables: &(impl Tables + ?Sized), known: &mut Known) -> Drawing {
    let count = known.candidates().count;
    let offset = if count == 1 { 0 } else { below(tables.random(), count) };
    known.afresh(tables);
    let slot = known.candidates().get(tables, offset);
    known.afresh(tables);
    if slot.generation() != known.entry.generation {
        return Drawing::STALE;
    }
    if slot.id().0 != known.asked.last().0 && tables.health(slot.id()).0 == Health::HEALTHY.0 {
        known.afresh(tables);
        let candidates = known.candidates();
        if candidates.count == 1 {
            return Drawing(0);
        }
        let neighbour =
            candidates.get(tables, if offset + 1 == candidates.count { 0 } else { offset + 1 });
        known.afresh(tables);
        if neighbour.generation() != known.entry.generation {
            return Drawing::STALE;
        }
        if tables.health(neighbour.id()).0 == Health::HEALTHY.0 {
            return Drawing(offset & Drawing::OFFSET | Drawing::ANOTHER);
        }
    }
    known.afresh(tables);
    let survey = tables.survey(known.candidates(), Drawn { offset, last: known.asked.last() });
    if survey.is_stale() {
        return survey;
    }
    known.afresh(tables);
    let slot = known.candidates().get(tables, survey.offset());
    if survey.another() && tables.health(slot.id()).0 != Health::HEALTHY.0 {
        Drawing(survey.0 | Drawing::TRIAL)
    } else {
        survey
    }
}

/// The second draw, over the eligible ones only. The first one stands if it is one of them, and is
/// taken if there is none.
///
/// Arithmetic instead of branches: each branch is a state that the verifier follows to the end, and
/// the rounds multiply them.
#[inline(always)]
pub fn survey(tables: &(impl Tables + ?Sized), candidates: Candidates, drawn: Drawn) -> Drawing {
    let now = tables.now_ns();
    let mut stale = 0;
    // One bit for each place.
    let (mut due, mut last) = (0_u64, 0_u64);
    unrolled!(offset in 0..64 {
        if offset >= candidates.count {
            break;
        }
        let slot = candidates.get(tables, offset);
        stale |= slot.generation() ^ candidates.generation;
        due |= tables.health(slot.id()).due_bit(now) << offset;
        last |= zero_bit(slot.id().0 ^ drawn.last.0) << offset;
    });
    if stale != 0 {
        return Drawing::STALE;
    }
    let (others, retry) = (due & !last, due & last);
    let stands = others >> (drawn.offset & Drawing::OFFSET) & 1 != 0;
    let another = if due & due.wrapping_sub(1) != 0 { Drawing::ANOTHER } else { 0 };
    if stands {
        Drawing(drawn.offset & Drawing::OFFSET | another)
    } else if others != 0 {
        Drawing(select_bit::select(others, below(tables.random(), others.count_ones())) | another)
    } else if retry != 0 {
        Drawing(select_bit::select(retry, 0))
    } else {
        Drawing(drawn.offset & Drawing::OFFSET | Drawing::DESPERATE)
    }
}

/// 1 for 0, else 0.
#[inline(always)]
pub(super) const fn zero_bit(number: u32) -> u64 {
    (number as u64).wrapping_sub(1) >> 63
}

/// The address in a slot of a backend or a source. For an `AF_INET` socket there is one kind only,
/// and the programs are shorter.
#[inline(always)]
pub(super) fn address(tables: &impl Tables, families: Families, slot: Slot) -> Ip6Be {
    if is_v6(families, slot) { tables.address6(slot.id()) } else { Ip6Be::mapped(slot.address()) }
}

/// Whether a client of `families` finds an IPv6 address in that slot.
#[inline(always)]
pub(super) const fn is_v6(families: Families, slot: Slot) -> bool {
    (families.six_first || families.both) && slot.is_v6()
}

/// A number below `count` from a uniform one, without division (Lemire 2019); the bias is below
/// 2⁻²⁶ for up to 64.
#[inline(always)]
pub(super) const fn below(random: u32, count: u32) -> u32 {
    ((random as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
