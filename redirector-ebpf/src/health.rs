//! What connects tell of their backends' health.

use redirector_common::backend::{BackendId, Health};

use crate::maps::{RD_HEALTH, element, now_ns};

/// Sets backend `id` aside after one more failure. Two failures at once may count as one; both set
/// it aside.
#[inline(always)]
pub(crate) fn blame(id: BackendId) {
    change(id, Health::after_failure);
}

/// Sets backend `id` aside anew for a failure that was counted already.
#[inline(always)]
pub(crate) fn confirm(id: BackendId) {
    change(id, Health::confirmed);
}

/// Keeps others away from backend `id` while one connect tries whether it works again. Two connects
/// at once may both try.
#[inline(always)]
pub(crate) fn try_out(id: BackendId) {
    change(id, Health::on_trial);
}

/// Forgets the failures of backend `id`, since it has just accepted a connect.
#[inline(always)]
pub(crate) fn absolve(id: BackendId) {
    if let Some(health) = element(&RD_HEALTH, id.0) {
        // SAFETY: as below.
        unsafe {
            if core::ptr::read_volatile(health).0 != Health::HEALTHY.0 {
                core::ptr::write_volatile(health, Health::HEALTHY);
            }
        }
    }
}

/// Gives backend `id` the health that `next` makes of its own at this moment.
#[inline(always)]
fn change(id: BackendId, next: impl FnOnce(Health, u64) -> Health) {
    if let Some(health) = element(&RD_HEALTH, id.0) {
        // SAFETY: a map value stays mapped while a program runs; 8 aligned bytes are read and
        // written in one access each.
        unsafe {
            core::ptr::write_volatile(health, next(core::ptr::read_volatile(health), now_ns()))
        };
    }
}
