//! The short ways of most connects: those of a socket that tries for the first time, to a route of
//! IPv4 backends, all healthy, that says nothing of ports and options. The rest takes the long way,
//! [`connect()`](super::connect()), which would decide the same.
//!
//! They are two so that each is short from its first look to its last store: what is kept for
//! another case is in the way of this one, and a hook finds little of itself in the processor's
//! first cache.

use super::{
    backend::Choice,
    balance::below,
    packed::Families,
    tables::{Client, Tables},
    unroll::unrolled,
};
use crate::{
    backend::{BackendId, Health},
    route::{RouteEntry, Slot},
};

/// The most backends of which one is chosen on a short way.
const FEW: u8 = 4;
// As many rounds are written out.
const _: () = assert!(FEW == 4);

/// The backend of a route that has no other.
#[inline(always)]
pub fn only(tables: &impl Tables, index: u32, client: &impl Client) -> Option<Choice> {
    let entry = tables.route(index);
    if !entry.is_plain4(1, 1) || !is_plain(client) {
        return None;
    }
    Some(Choice::only(healthy(tables, entry, 0)?, client.port()))
}

/// One of a few. All are looked at before the draw, which so has no say in which way is taken: that
/// would bend the odds.
#[inline(always)]
pub fn one_of_few(tables: &impl Tables, index: u32, client: &impl Client) -> Option<Choice> {
    let mut entry = tables.route(index);
    if !entry.is_plain4(2, FEW) || !is_plain(client) {
        return None;
    }
    unrolled!(offset in 0..4 {
        if offset >= u32::from(entry.backends4) {
            break;
        }
        healthy(tables, entry, offset)?;
        entry = RouteEntry::of_word(tables.afresh(entry.word()));
    });
    let offset = below(tables.random(), u32::from(entry.backends4));
    Some(Choice::one_of(
        tables.slot_of(entry.first().wrapping_add(offset), entry.generation)?,
        client.port(),
    ))
}

/// Whether the socket takes IPv4 first, and tries for the first time.
#[inline(always)]
fn is_plain(client: &impl Client) -> bool {
    let Families { six_first, .. } = client.families();
    !six_first && client.last() == BackendId::NONE
}

/// The backend at `offset`, if it is healthy and the block still stands.
#[inline(always)]
fn healthy(tables: &impl Tables, entry: RouteEntry, offset: u32) -> Option<Slot> {
    // One word over each look at a table, see `Known`.
    let afresh = |slot: Slot| Slot::of_word(tables.afresh(slot.word()));
    let slot = afresh(tables.slot_of(entry.first().wrapping_add(offset), entry.generation)?);
    if tables.health(slot.id()) == Health::HEALTHY { Some(afresh(slot)) } else { None }
}

#[cfg(test)]
#[path = "fast_path_tests.rs"]
mod tests;
