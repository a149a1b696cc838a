//! Decides what happens to a connect to an address of the pool.

use super::{
    backend::Backend,
    packed::{BlockRead, Selection},
    port_map::translate,
    tables::{Client, Tables},
};
use crate::{addr::PortBe, event::DenyReason};

/// What happens to a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the backend that was selected.
    Redirect,
    /// It is refused at once.
    Refuse,
    /// It is left alone, as the route's policy asks.
    Pass,
}

/// Decides a TCP connect to the pool's address `index`. Its backend, if it gets one, is written to
/// `backend`.
///
/// The backend is not part of the enum: the compiler copies an enum's unset parts from
/// uninitialised stack, "invalid read from stack off -40+0 size 8" without CAP_PERFMON (6.18).
#[inline(always)]
pub fn connect(
    tables: &impl Tables,
    index: u32,
    client: &impl Client,
    backend: &mut Backend,
) -> Verdict {
    let mut selection = tables.select(index, client.key());
    let mut read = read_backend(tables, selection, backend);
    if read == BlockRead::Stale {
        // The route has a new block: select there.
        selection = tables.select(index, client.key());
        read = read_backend(tables, selection, backend);
    }
    match read {
        BlockRead::Found => Verdict::Redirect,
        _ if selection.passes() => Verdict::Pass,
        _ => Verdict::Refuse,
    }
}

/// Reads the slot of the backend that was selected.
#[inline(always)]
fn read_backend(tables: &impl Tables, selection: Selection, backend: &mut Backend) -> BlockRead {
    if selection.read() != BlockRead::Found {
        return selection.read();
    }
    let slot = tables.slot(selection.slot());
    if slot.generation() != selection.generation() {
        return BlockRead::Stale;
    }
    *backend = Backend::new(selection, slot);
    BlockRead::Found
}

/// Why a connect to address `index` and `port` gets no backend.
#[inline(always)]
pub fn deny_reason(tables: &(impl Tables + ?Sized), index: u32, port: PortBe) -> DenyReason {
    let entry = tables.route(index);
    if !entry.is_present() {
        return DenyReason::NoRoute;
    }
    if translate(tables, entry, port).read() == BlockRead::Missing {
        DenyReason::PortNotListed
    } else {
        DenyReason::NoBackend
    }
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
