//! Which port of the destination a client's port stands for.

use super::{
    packed::{Found, Ports},
    tables::Tables,
    unroll::unrolled,
};
use crate::{addr::PortBe, route::RouteEntry};

/// Finds the destination's port for the client's `port`.
#[inline(always)]
pub(super) fn translate(tables: &(impl Tables + ?Sized), entry: RouteEntry, port: PortBe) -> Found {
    if entry.ports == 0 {
        return Found::at(port);
    }
    tables.find_port(
        Ports { first: entry.first(), count: u32::from(entry.ports), generation: entry.generation },
        port,
    )
}

/// Finds the pair for the port that the client asks for.
#[inline(always)]
pub fn find_port(tables: &(impl Tables + ?Sized), ports: Ports, client: PortBe) -> Found {
    unrolled!(offset in 0..16 {
        if offset >= ports.count {
            break;
        }
        let slot = tables.slot(ports.first.wrapping_add(offset));
        if slot.generation() != ports.generation {
            return Found::STALE;
        }
        if slot.client_port().0 == client.0 {
            return Found::at(slot.destination_port());
        }
    });
    Found::NONE
}
