//! Which backend a connect gets: uniform over the eligible ones of the right family, not the one
//! that this socket tried last.

use super::{
    packed::{Candidates, Drawing, Drawn},
    select_bit::{select, zero_bit},
    select_state::Known,
    tables::Tables,
    unroll::unrolled,
};
use crate::{backend::Health, route::Slot};

/// One of the candidates. Another generation's when the block was replaced meanwhile.
#[inline(always)]
fn candidate(tables: &(impl Tables + ?Sized), candidates: Candidates, offset: u32) -> Slot {
    tables.slot(candidates.first.wrapping_add(offset))
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
    let slot = candidate(tables, known.candidates(), offset);
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
        let neighbour = candidate(
            tables,
            candidates,
            if offset + 1 == candidates.count { 0 } else { offset + 1 },
        );
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
    let slot = candidate(tables, known.candidates(), survey.offset());
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
        let slot = candidate(tables, candidates, offset);
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
        Drawing(select(others, below(tables.random(), others.count_ones())) | another)
    } else if retry != 0 {
        Drawing(select(retry, 0))
    } else {
        Drawing(drawn.offset & Drawing::OFFSET | Drawing::DESPERATE)
    }
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
