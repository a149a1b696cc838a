//! Counts the outcome of connects that were not established; the only place that does.

use redirector_common::{
    addr::Ip4Be,
    backend::{BackendId, Caller},
    decide::{ConnectOutcome, connect_outcome},
    origin::Origin,
};

use crate::{
    events, health,
    maps::{self, add},
    opaque,
};

/// Adds one to the counter of `$outcome` and 0 to the others. Selecting one of the counters would
/// be arithmetic on a pointer that differs by path, which the verifier allows with CAP_PERFMON
/// only: "R0 tried to add from different maps, paths or scalars" (6.18).
macro_rules! count_outcome {
    ($stats:ident, $outcome:ident) => {
        count_if!($stats.refused, $outcome == ConnectOutcome::Refused);
        count_if!($stats.timed_out, $outcome == ConnectOutcome::TimedOut);
        count_if!($stats.unreachable, $outcome == ConnectOutcome::Unreachable);
        count_if!($stats.aborted, $outcome == ConnectOutcome::Aborted);
        // All others were counted as started when their SYN left.
        count_if!($stats.started, $outcome == ConnectOutcome::Unsent);
        count_if!($stats.unsent, $outcome == ConnectOutcome::Unsent);
    };
}

macro_rules! count_if {
    ($stats:ident.$counter:ident, $condition:expr) => {
        add(&mut $stats.$counter, opaque::number(u64::from($condition)))
    };
}

/// Counts the outcome of a connect that was not established, unless that was done before, and
/// ejects the backend if it is at fault.
#[inline(always)]
pub(crate) fn finish_in_flight(origin: &mut Origin) {
    if origin.is_in_flight() {
        record_outcome(origin);
    }
}

/// Notes whether a socket that was closed before its SYN had a route to its backend: `address` is
/// the destination that the kernel has left in it.
#[inline(always)]
pub(crate) fn note_route(origin: &mut Origin, address: Ip4Be) {
    if origin.has_route_left(address) {
        origin.evidence |= Origin::EVIDENCE_NO_PORT;
    }
}

/// Not inlined: it would slow down every connect, and few sockets connect twice.
#[inline(never)]
fn record_outcome(origin: &mut Origin) {
    let outcome = connect_outcome(origin.phase, origin.flags, origin.evidence);
    if outcome.is_backend_failure() && origin.evidence & Origin::EVIDENCE_LOCAL == 0 {
        if origin.flags & Origin::FLAG_FAILURE_RECORDED != 0 {
            health::extend_ejection(origin.backend_id, health::caller(origin));
        }
        record_failure_once(origin);
    } else if outcome == ConnectOutcome::Unsent && origin.evidence & Origin::EVIDENCE_NO_PORT != 0 {
        // Another backend has source ports of its own.
        log!(ejected(origin));
        health::record_no_port(origin.backend_id, health::caller(origin));
    }
    origin.phase = Origin::PHASE_DONE;
    if let Some(stats) = maps::route_stats(origin.route) {
        count_outcome!(stats, outcome);
    }
    if let Some(stats) = maps::backend_stats(origin.backend_id) {
        count_outcome!(stats, outcome);
    }
    events::failed(origin, outcome);
}

/// Counts an established connection of a route that its backend `id` has reset before a byte
/// arrived, and ejects the backend.
#[inline(always)]
pub(crate) fn record_reset(route: u32, id: BackendId, caller: Caller) {
    if let Some(stats) = maps::route_stats(route) {
        add(&mut stats.reset, 1);
    }
    if let Some(stats) = maps::backend_stats(id) {
        add(&mut stats.reset, 1);
    }
    health::record_reset(id, caller);
}

/// Records a failure of the backend, at most once for each connect, and ejects it.
#[inline(always)]
pub(crate) fn record_failure_once(origin: &mut Origin) {
    if origin.flags & Origin::FLAG_FAILURE_RECORDED != 0 {
        return;
    }
    origin.flags |= Origin::FLAG_FAILURE_RECORDED;
    log!(ejected(origin));
    health::record_failure(origin.backend_id, health::caller(origin));
}
