//! The fast paths that most connects take: a first connect of its socket, to a route of healthy
//! IPv4 backends without ports and options. All others take [`connect()`](super::connect()), which
//! would decide the same.
//!
//! There are two, so that each is short from its first load to its last store: values kept for
//! other cases would be spilled, and little of a hook's code is in the L1 cache when it runs.

use super::{
    backend::Backend,
    balance::below,
    packed::Families,
    tables::{Client, Tables},
};
use crate::{
    addr::PortBe,
    backend::{BackendId, Health},
    route::{RouteEntry, Slot},
    unroll::unroll,
};

/// The most backends that [`few_backends`] selects from.
const FEW: u8 = 4;
// The loop in `few_backends` has this many rounds.
const _: () = assert!(FEW == 4);

/// The backend of a route with only one.
#[inline(always)]
pub fn single_backend(tables: &impl Tables, index: u32, client: &impl Client) -> Option<Backend> {
    let entry = tables.route(index);
    if !entry.is_simple_v4(1, 1) || !is_simple(client) {
        return None;
    }
    Some(Backend::single(healthy(tables, entry, (0, client.port()))?, client.port()))
}

/// One of a few backends. All are read before the draw: if only an unhealthy draw led to
/// [`connect()`](super::connect()), which draws again, the result would not be uniform.
#[inline(always)]
pub fn few_backends(tables: &impl Tables, index: u32, client: &impl Client) -> Option<Backend> {
    let mut entry = tables.route(index);
    if !entry.is_simple_v4(2, FEW) || !is_simple(client) {
        return None;
    }
    unroll!(offset in 0..4 {
        if offset >= u32::from(entry.backends4) {
            break;
        }
        healthy(tables, entry, (offset, client.port()))?;
        entry = RouteEntry::from_bits(tables.reload(entry.to_bits()));
    });
    let offset = below(tables.random(), u32::from(entry.backends4));
    let slot = tables.slot_in_block(entry.first().wrapping_add(offset), entry.generation)?;
    Some(Backend::one_of_several(slot, client.port()))
}

/// Whether the client prefers IPv4 and its socket connects for the first time.
#[inline(always)]
fn is_simple(client: &impl Client) -> bool {
    let Families { prefer_v6, .. } = client.families();
    !prefer_v6 && client.last() == BackendId::NONE
}

/// The backend at `offset`, if it is healthy at the port and the block has not been replaced.
#[inline(always)]
fn healthy(tables: &impl Tables, entry: RouteEntry, (offset, port): (u32, PortBe)) -> Option<Slot> {
    // See `SelectState`.
    let reload = |slot: Slot| Slot::from_bits(tables.reload(slot.to_bits()));
    let slot = tables.slot_in_block(entry.first().wrapping_add(offset), entry.generation)?;
    let slot = reload(slot);
    if tables.health(slot.id(), port) == Health::HEALTHY { Some(reload(slot)) } else { None }
}

#[cfg(test)]
#[path = "fast_path_tests.rs"]
mod tests;
