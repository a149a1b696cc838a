//! Where the labels of a name start.

use redirector_common::packet::{labels::labels, search::is_start};

use super::scratch::NameScratch;
use crate::packet::scratch::scratch;

/// 1 if a label starts at octet `at` of the name that was read.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_starts_label(at: u32) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    if rd_labels() == 0 {
        return 0;
    }
    // SAFETY: the scratch memory is this program's alone.
    let names: &NameScratch = unsafe { &(*scratch).names };
    (names.has_one_zero != 0 && is_start(names.starts, at.into())).into()
}

/// Follows the labels of the name that was read. Returns its octets without the final zero; 0 if it
/// is malformed, or the root.
///
/// A function of its own: each of its 33 ends would be another start for what follows.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_labels() -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the scratch memory is this program's alone; the indices are below its sizes.
    let names: &mut NameScratch = unsafe { &mut (*scratch).names };
    let raw = &raw const names.raw;
    // SAFETY: as above.
    let Some(labels) = labels(|at| unsafe { (*raw)[at as usize] }) else { return 0 };
    [names.starts[0], names.starts[1], names.starts[2], names.starts[3]] = labels.starts;
    names.has_one_zero = (names.length == labels.length).into();
    labels.length
}
