//! Selects a backend uniformly among the eligible ones of the client's family, avoiding the one
//! that this socket was sent to last.

use super::{
    packed::{Candidates, Draw, DrawInput},
    select_bit::nth_set_bit,
    select_state::SelectState,
    tables::Tables,
};
use crate::{backend::Health, bits::zero_bit, route::Slot, unroll::unroll};

/// Picks one of the candidates, of which there is at least one.
///
/// A first draw stands if its backend is healthy and not the socket's last one, and the candidate
/// after it is healthy, too, which proves that there is an alternative. This costs one random
/// number and one more slot. Otherwise [`scan_eligible`] reads all candidates and draws again if
/// necessary. Together the two draws are uniform over the eligible candidates.
#[inline(always)]
pub(super) fn pick_backend(tables: &(impl Tables + ?Sized), state: &mut SelectState) -> Draw {
    let count = state.candidates().count;
    let offset = if count == 1 { 0 } else { below(tables.random(), count) };
    state.reload(tables);
    let slot = candidate(tables, state.candidates(), offset);
    state.reload(tables);
    if slot.generation() != state.entry().generation {
        return Draw::STALE;
    }
    let input = draw_input(state, offset);
    if slot.id().0 != input.last.0 && health(tables, state, slot).0 == Health::HEALTHY.0 {
        state.reload(tables);
        let candidates = state.candidates();
        if candidates.count == 1 {
            return Draw::new(false);
        }
        let next = if offset + 1 == candidates.count { 0 } else { offset + 1 };
        let neighbour = candidate(tables, candidates, next);
        state.reload(tables);
        if neighbour.generation() != state.entry().generation {
            return Draw::STALE;
        }
        if health(tables, state, neighbour).0 == Health::HEALTHY.0 {
            return Draw::new(true).at(input.offset());
        }
    }
    state.reload(tables);
    let input = draw_input(state, offset);
    let draw = tables.scan_eligible(state.candidates(), input);
    if draw.is_stale() {
        return draw;
    }
    state.reload(tables);
    if draw.all_ejected() {
        let input = draw_input(state, draw.offset());
        return draw.moved_to(tables.latest_success(state.candidates(), input));
    }
    let slot = candidate(tables, state.candidates(), draw.offset());
    let is_healthy = health(tables, state, slot).concerns_bit(state.key().caller()) == 0;
    state.reload(tables);
    if is_healthy {
        draw
    } else if draw.has_alternative() {
        draw.with_trial()
    } else {
        // The only eligible one has failed, too: others may work again before it answers.
        draw.with_alternative(state.candidates().count > 1)
    }
}

/// Draws again among all candidates. The first draw stands if its backend is eligible, or if none
/// is.
///
/// The rounds use arithmetic instead of branches, but for those that end the scan: the verifier
/// follows both sides of a branch, and sides that meet again multiply over the rounds unless it
/// happens to keep a state in between (17 thousand or more than a million instructions, depending
/// on the code before, 6.18).
#[inline(always)]
pub fn scan_eligible(
    tables: &(impl Tables + ?Sized),
    candidates: Candidates,
    input: DrawInput,
) -> Draw {
    let now = tables.now_ns();
    // One bit for each offset.
    let (mut eligible, mut last) = (0_u64, 0_u64);
    unroll!(offset in 0..64 {
        if offset >= candidates.count {
            break;
        }
        let at = candidates.first.wrapping_add(offset);
        let Some(slot) = tables.slot_in_block(at, candidates.generation) else {
            return Draw::STALE;
        };
        let Some(health) = tables.known_health(slot.id(), input.caller.port()) else {
            return Draw::STALE;
        };
        eligible |= health.eligible_bit(input.caller, now) << offset;
        last |= zero_bit(slot.id().0 ^ input.last.0) << offset;
    });
    let (others, retry) = (eligible & !last, eligible & last);
    let first_stands = others >> input.offset() & 1 != 0;
    let draw = Draw::new(eligible & eligible.wrapping_sub(1) != 0);
    if first_stands {
        draw.at(input.offset())
    } else if others != 0 {
        let rank = below(tables.random(), others.count_ones());
        draw.at(nth_set_bit(others, rank))
    } else if retry != 0 {
        Draw::new(false).at(nth_set_bit(retry, 0))
    } else {
        // The others may work again: a silent one gets the short time.
        Draw::new(candidates.count > 1).at(input.offset()).with_all_ejected()
    }
}

/// The offset of the candidate that accepted a connect last, but for the socket's last one; the one
/// of `input` if there is none. Like [`scan_eligible`] it uses arithmetic.
#[inline(always)]
#[expect(unused_assignments, reason = "the last round's `latest`")]
pub fn latest_success(
    tables: &(impl Tables + ?Sized),
    candidates: Candidates,
    input: DrawInput,
) -> u32 {
    let (mut found, mut latest) = (input.offset(), 0_u64);
    unroll!(offset in 0..64 {
        if offset >= candidates.count {
            break;
        }
        let at = candidates.first.wrapping_add(offset);
        let Some(slot) = tables.slot_in_block(at, candidates.generation) else {
            return found;
        };
        let Some(succeeded) = tables.succeeded_ns(slot.id()) else {
            return found;
        };
        let is_another = 1 ^ zero_bit(slot.id().0 ^ input.last.0);
        // Times are below 2⁶³.
        let later = latest.wrapping_sub(succeeded) >> 63 & is_another;
        latest = latest.wrapping_add(succeeded.wrapping_sub(latest).wrapping_mul(later));
        found = found.wrapping_add(offset.wrapping_sub(found).wrapping_mul(later as u32));
    });
    found
}

/// The input of a scan.
#[inline(always)]
fn draw_input(state: &SelectState, offset: u32) -> DrawInput {
    DrawInput { offset, last: state.key().last(), caller: state.key().caller() }
}

/// The health of the backend in `slot`.
#[inline(always)]
fn health(tables: &(impl Tables + ?Sized), state: &SelectState, slot: Slot) -> Health {
    tables.health(slot.id(), state.key().port())
}

/// The slot of the candidate at `offset`; of another generation if the block was replaced.
#[inline(always)]
fn candidate(tables: &(impl Tables + ?Sized), candidates: Candidates, offset: u32) -> Slot {
    tables.slot(candidates.first.wrapping_add(offset))
}

/// A number below `count` from a uniform one, without division (Lemire 2019); the bias is below
/// 2⁻²⁶ for counts up to 64.
#[inline(always)]
pub(super) const fn below(random: u32, count: u32) -> u32 {
    ((random as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
