//! The one place where a connect that was not established is counted.

use redirector_common::{
    decide::{End, end_of_connect},
    origin::Origin,
};

use crate::{
    events, health,
    maps::{self, add, unknown},
};

/// Adds one to the counter of `$end`, and nothing to the others. Choosing one of five counters
/// would be arithmetic on a pointer that differs by path, which the verifier (6.18) allows with
/// CAP_PERFMON only: "R0 tried to add from different maps, paths or scalars".
macro_rules! count_end {
    ($stats:ident, $end:ident) => {
        add(&mut $stats.refused, unknown(u64::from($end == End::Refused)));
        add(&mut $stats.timed_out, unknown(u64::from($end == End::TimedOut)));
        add(&mut $stats.unreachable, unknown(u64::from($end == End::Unreachable)));
        add(&mut $stats.aborted, unknown(u64::from($end == End::Aborted)));
        // One whose SYN has left was counted as begun then.
        add(&mut $stats.started, unknown(u64::from($end == End::Unsent)));
        add(&mut $stats.unsent, unknown(u64::from($end == End::Unsent)));
    };
}

/// Counts the end of a connect that was not established, once, and sets its backend aside if it is
/// to blame.
#[inline(always)]
pub(crate) fn settle(origin: &mut Origin) {
    if origin.is_in_flight() {
        finish(origin);
    }
}

/// A function of its own: as a part of the hooks that connect it would be in their way each time,
/// though few sockets try twice.
#[inline(never)]
fn finish(origin: &mut Origin) {
    let end = end_of_connect(origin.phase, origin.marks);
    if end.blames_backend() {
        if origin.marks & Origin::MARK_BLAMED != 0 {
            health::confirm(origin.id());
        }
        blame_once(origin);
    }
    origin.phase = Origin::PHASE_OVER;
    if let Some(stats) = maps::route_stats(origin.route) {
        count_end!(stats, end);
    }
    if let Some(stats) = maps::backend_stats(origin.id()) {
        count_end!(stats, end);
    }
    events::failed(origin, end);
}

/// Sets the backend aside, once for each connect.
#[inline(always)]
pub(crate) fn blame_once(origin: &mut Origin) {
    if origin.marks & Origin::MARK_BLAMED != 0 {
        return;
    }
    origin.marks |= Origin::MARK_BLAMED;
    health::blame(origin.id());
    if let Some(stats) = maps::backend_stats(origin.id()) {
        stats.failed_port = u64::from(origin.backend_port.get());
    }
}
