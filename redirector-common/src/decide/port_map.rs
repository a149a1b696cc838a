//! Maps a client's port to the destination's.

use super::{
    packed::{PortLookup, PortPairs},
    tables::Tables,
};
use crate::{addr::PortBe, route::RouteEntry, unroll::unroll};

/// The destination's port for the client's `port`: the same one if the route lists no ports.
#[inline(always)]
pub(super) fn translate(
    tables: &(impl Tables + ?Sized),
    entry: RouteEntry,
    port: PortBe,
) -> PortLookup {
    if entry.ports == 0 {
        return PortLookup::found(port);
    }
    let pairs = PortPairs {
        first: entry.first(),
        count: u32::from(entry.ports),
        generation: entry.generation,
    };
    tables.find_port(pairs, port)
}

/// Finds the destination's port for the client's port in the block's port pairs.
#[inline(always)]
pub fn find_port(tables: &(impl Tables + ?Sized), pairs: PortPairs, client: PortBe) -> PortLookup {
    unroll!(offset in 0..16 {
        if offset >= pairs.count {
            break;
        }
        let slot = tables.slot(pairs.first.wrapping_add(offset));
        if slot.generation() != pairs.generation {
            return PortLookup::STALE;
        }
        if slot.client_port().0 == client.0 {
            return PortLookup::found(slot.destination_port());
        }
    });
    PortLookup::MISSING
}
