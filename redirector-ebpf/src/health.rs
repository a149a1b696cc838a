//! Changes the health of backends after connects.

use redirector_common::{
    agent::Control,
    backend::{BackendId, Caller, Health, Witness},
    origin::Origin,
};

use crate::maps::{self, RD_HEALTH, element, now_ns};

/// What has happened to a connect.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Change {
    Failed,
    Confirmed,
    Trial,
    Succeeded,
    Reset,
    Served,
    NoPort,
}

/// Ejects backend `id` after one more failure. Two concurrent failures may count as one.
#[inline(always)]
pub(crate) fn record_failure(id: BackendId, caller: Caller) {
    rd_health(id.0, caller.to_bits(), Change::Failed as u32);
}

/// Keeps the caller, which has no source port left towards backend `id`, away from it.
#[inline(always)]
pub(crate) fn record_no_port(id: BackendId, caller: Caller) {
    rd_health(id.0, caller.to_bits(), Change::NoPort as u32);
}

/// Restarts the ejection of backend `id` for a failure that was already counted.
#[inline(always)]
pub(crate) fn extend_ejection(id: BackendId, caller: Caller) {
    rd_health(id.0, caller.to_bits(), Change::Confirmed as u32);
}

/// Keeps other connects away from backend `id` during a trial. Two concurrent connects may both be
/// trials.
#[inline(always)]
pub(crate) fn start_trial(id: BackendId, caller: Caller) {
    rd_health(id.0, caller.to_bits(), Change::Trial as u32);
}

/// Clears the failures of backend `id`, which has just accepted a connect at `now_ns`. True if that
/// shows nothing, since the backend has reset connections that it had accepted: then
/// [`record_service`] does it.
#[inline(always)]
pub(crate) fn record_success(id: BackendId, caller: Caller, now_ns: u64) -> bool {
    if let Some(health) = element(&RD_HEALTH, Health::index(id, caller.port())) {
        // SAFETY: as in `rd_health`.
        let health = unsafe { core::ptr::read_volatile(health) };
        if health.0 != Health::HEALTHY.0 {
            if health.is_resetting() {
                return true;
            }
            rd_health(id.0, caller.to_bits(), Change::Succeeded as u32);
        }
    }
    if let Some(stats) = maps::backend_stats(id) {
        stats.succeeded_ns = now_ns;
    }
    false
}

/// Clears the failures of backend `id`, which has served a connection, if it has reset others.
#[inline(always)]
pub(crate) fn record_service(id: BackendId, caller: Caller) {
    if let Some(health) = element(&RD_HEALTH, Health::index(id, caller.port())) {
        // SAFETY: as in `rd_health`.
        if unsafe { core::ptr::read_volatile(health) }.is_resetting() {
            rd_health(id.0, caller.to_bits(), Change::Served as u32);
        }
    }
}

/// Ejects backend `id`, which has accepted a connect and reset the connection before a byte
/// arrived, unless the agent's settings keep it.
#[inline(always)]
pub(crate) fn record_reset(id: BackendId, caller: Caller) {
    if maps::control().flags & Control::KEEP_RESETTING == 0 {
        rd_health(id.0, caller.to_bits(), Change::Reset as u32);
    }
}

/// The caller of a redirected connect.
#[inline(always)]
pub(crate) fn caller(origin: &Origin) -> Caller {
    Caller::new(origin.backend_port, Witness::cgroup(origin.cgroup))
}

/// Changes the health of backend `id` for a [`Caller`]; `change`: a [`Change`]. A global function,
/// which the verifier checks once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_health(id: u32, caller: u32, change: u32) -> u32 {
    let caller = Caller::from_bits(caller);
    let Some(health) = element(&RD_HEALTH, Health::index(BackendId(id), caller.port())) else {
        return 0;
    };
    // SAFETY: a map value stays mapped while a program runs; 8 aligned bytes are read and written
    // in one access each.
    let old = unsafe { core::ptr::read_volatile(health) };
    let new = if change == Change::Failed as u32 {
        old.after_failure(caller, now_ns())
    } else if change == Change::Confirmed as u32 {
        old.with_extended_ejection(caller, now_ns())
    } else if change == Change::Trial as u32 {
        old.on_trial(caller, now_ns())
    } else if change == Change::Reset as u32 {
        old.after_reset(caller, now_ns())
    } else if change == Change::Served as u32 {
        old.after_service(caller)
    } else if change == Change::NoPort as u32 {
        old.after_no_port(caller, now_ns())
    } else {
        old.after_success(caller)
    };
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(health, new) };
    1
}
