//! Changes the health of backends after connects.

use redirector_common::backend::{BackendId, Health};

use crate::maps::{RD_HEALTH, element, now_ns};

/// Ejects backend `id` after one more failure. Two concurrent failures may count as one.
#[inline(always)]
pub(crate) fn record_failure(id: BackendId) {
    update(id, Health::after_failure);
}

/// Restarts the ejection of backend `id` for a failure that was already counted.
#[inline(always)]
pub(crate) fn extend_ejection(id: BackendId) {
    update(id, Health::with_extended_ejection);
}

/// Keeps other connects away from backend `id` during a trial. Two concurrent connects may both be
/// trials.
#[inline(always)]
pub(crate) fn start_trial(id: BackendId) {
    update(id, Health::on_trial);
}

/// Clears the failures of backend `id`, which has just accepted a connect.
#[inline(always)]
pub(crate) fn record_success(id: BackendId) {
    if let Some(health) = element(&RD_HEALTH, id.0) {
        // SAFETY: as below.
        unsafe {
            if core::ptr::read_volatile(health).0 != Health::HEALTHY.0 {
                core::ptr::write_volatile(health, Health::HEALTHY);
            }
        }
    }
}

/// Sets the health of backend `id` to what `next` returns for its present health and time.
#[inline(always)]
fn update(id: BackendId, next: impl FnOnce(Health, u64) -> Health) {
    if let Some(health) = element(&RD_HEALTH, id.0) {
        // SAFETY: a map value stays mapped while a program runs; 8 aligned bytes are read and
        // written in one access each.
        unsafe {
            core::ptr::write_volatile(health, next(core::ptr::read_volatile(health), now_ns()))
        };
    }
}
