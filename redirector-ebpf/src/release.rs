//! `sock_release`, and the one place where a connect that was not established is counted.

use aya_ebpf::programs::SockContext;
use redirector_common::{
    decide::{End, end_of_connect},
    origin::Origin,
};

use crate::{
    ctx::read,
    maps::{self, add},
};

const TCP_SYN_SENT: u32 = 2;

/// The application lets go of the socket. One that is still connecting is about to be closed: the state callback that follows counts it.
#[inline(always)]
pub(crate) fn release(ctx: &SockContext) {
    let Some(origin) = maps::origin(ctx.sock.cast()) else { return };
    if origin.phase == Origin::PHASE_CONNECTING && read!((*ctx.sock).state) == TCP_SYN_SENT {
        origin.marks |= Origin::MARK_ABORTED;
    } else if origin.phase == Origin::PHASE_CHOSEN {
        settle(origin);
    }
}

/// Counts the end of a connect that was not established, once, and sets its backend aside if it is to blame.
#[inline(always)]
pub(crate) fn settle(origin: &mut Origin) {
    if !origin.is_in_flight() {
        return;
    }
    let end = end_of_connect(origin.phase, origin.marks);
    if end.blames_backend() {
        blame_once(origin);
    }
    origin.phase = Origin::PHASE_OVER;
    if let Some(stats) = maps::route_stats(origin.route) {
        let counter = match end {
            End::Refused => &mut stats.refused,
            End::TimedOut => &mut stats.timed_out,
            End::Unreachable => &mut stats.unreachable,
            End::Aborted => &mut stats.aborted,
            End::Unsent => &mut stats.unsent,
        };
        add(counter, 1);
    }
    if let Some(stats) = maps::backend_stats(origin.id()) {
        let counter = match end {
            End::Refused => &mut stats.refused,
            End::TimedOut => &mut stats.timed_out,
            End::Unreachable => &mut stats.unreachable,
            End::Aborted => &mut stats.aborted,
            End::Unsent => &mut stats.unsent,
        };
        add(counter, 1);
    }
}

/// Sets the backend aside, once for each connect.
#[inline(always)]
pub(crate) fn blame_once(origin: &mut Origin) {
    if origin.marks & Origin::MARK_BLAMED != 0 {
        return;
    }
    origin.marks |= Origin::MARK_BLAMED;
    maps::blame(origin.id());
    if let Some(stats) = maps::backend_stats(origin.id()) {
        stats.failed_port = u64::from(origin.backend_port.get());
    }
}
