//! Counts a SYN that its backend did not accept, and ejects the backend if it is at fault; the only
//! place that does.

use redirector_common::{
    event::EventKind,
    packet::flow::{Flow, FlowState},
};

use super::{
    flow_events, flow_tables as tables,
    scratch::work,
    work::{caller, copy_flow, get, set},
};
use crate::{
    health,
    maps::{self, add},
    opaque,
    verdict::{CONTINUE, NEXT},
};

/// Why a backend did not accept a SYN.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Failure {
    /// It answered with a reset.
    Refused = EventKind::Refused as u32,
    /// It did not answer before the guest sent the SYN again.
    TimedOut = EventKind::TimedOut as u32,
    /// The network reported the SYN as undeliverable.
    Unreachable = EventKind::Unreachable as u32,
    /// The guest gave up.
    Aborted = EventKind::Aborted as u32,
}

/// Adds one to the counter of the failure and 0 to the others: see [`crate::outcome`].
macro_rules! count_failure {
    ($stats:ident, $failure:ident) => {
        count_if!($stats.refused, $failure == Failure::Refused as u32);
        count_if!($stats.timed_out, $failure == Failure::TimedOut as u32);
        count_if!($stats.unreachable, $failure == Failure::Unreachable as u32);
        count_if!($stats.aborted, $failure == Failure::Aborted as u32);
    };
}
macro_rules! count_if {
    ($stats:ident.$counter:ident, $condition:expr) => {
        add(&mut $stats.$counter, opaque::number(u64::from($condition)))
    };
}

/// Counts the outcome of the half-open flow at `work.key`, at most once; `failure`: a [`Failure`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_attempt_failed(failure: u32) -> i32 {
    let Some(work) = work() else { return NEXT };
    // SAFETY: the key is whole.
    let flow = tables::brief(unsafe { &raw const (*work).key }).cast::<Flow>();
    if flow.is_null() {
        return NEXT;
    }
    let state: FlowState = get!(flow.state);
    if state.has(FlowState::FAILED) {
        return NEXT;
    }
    set!(flow.state = state.with(FlowState::FAILED));
    let id = get!(flow.backend_id);
    // A look-up that fails ends the path: see `rd_count_established`.
    let Some(stats) = maps::route_stats(get!(flow.route)) else { return NEXT };
    add(&mut stats.started, 1);
    count_failure!(stats, failure);
    let Some(stats) = maps::backend_stats(id) else { return NEXT };
    add(&mut stats.started, 1);
    count_failure!(stats, failure);
    if is_evidence(failure, get!(flow.origin), stats.established as u32) {
        health::record_failure(id, caller(work, get!(flow.peer_port)));
    }
    copy_flow(flow, work);
    set!(work.report.elapsed_ns = maps::now_ns().wrapping_sub(get!(flow.started_ns)));
    flow_events::rd_flow_failed(failure);
    CONTINUE
}

/// Whether the failure speaks against the backend. Silence does not if the backend has accepted
/// other connects meanwhile: a guest can send SYNs that nobody answers.
#[inline(always)]
fn is_evidence(failure: u32, before: u32, now: u32) -> bool {
    failure != Failure::Aborted as u32 && (failure != Failure::TimedOut as u32 || before == now)
}
