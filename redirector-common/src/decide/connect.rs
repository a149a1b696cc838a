//! What a connect to an address of the pool does.

use super::{
    backend::Choice,
    packed::{Pick, Read},
    port_map::translate,
    tables::{Client, Tables},
};
use crate::{addr::PortBe, event::Event};

/// What a connect does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the backend that was chosen.
    Redirect,
    /// It is refused at once.
    Refuse,
    /// It is left alone, since the route says so.
    Pass,
}

/// Decides a TCP connect to the pool's address `index`. The backend, if it gets one, is put into
/// `choice`.
///
/// The result goes to a place that is initialised, not into an enum: parts of an enum that are not
/// set make the compiler copy undefined stack, "invalid read from stack off -40+0 size 8" without
/// CAP_PERFMON (6.18).
#[inline(always)]
pub fn connect(
    tables: &impl Tables,
    index: u32,
    client: &impl Client,
    choice: &mut Choice,
) -> Verdict {
    let mut pick = tables.pick(index, client.asked());
    let mut read = fill(tables, pick, choice);
    if read == Read::Stale {
        // The route's new block.
        pick = tables.pick(index, client.asked());
        read = fill(tables, pick, choice);
    }
    match read {
        Read::Done => Verdict::Redirect,
        _ if pick.passes() => Verdict::Pass,
        _ => Verdict::Refuse,
    }
}

/// Takes the backend that was picked.
#[inline(always)]
fn fill(tables: &impl Tables, pick: Pick, choice: &mut Choice) -> Read {
    if pick.read() != Read::Done {
        return pick.read();
    }
    let slot = tables.slot(pick.slot());
    if slot.generation() != pick.generation() {
        return Read::Stale;
    }
    *choice = Choice::new(pick, slot);
    Read::Done
}

/// Why a connect to address `index` and `port` gets no backend: one of the `REASON_` constants of
/// [`Event`].
#[inline(always)]
pub fn refusal(tables: &(impl Tables + ?Sized), index: u32, port: PortBe) -> u8 {
    let entry = tables.route(index);
    if !entry.is_present() {
        return Event::REASON_NO_ROUTE;
    }
    if translate(tables, entry, port).read() == Read::None {
        Event::REASON_PORT
    } else {
        Event::REASON_NO_BACKEND
    }
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
