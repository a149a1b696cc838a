//! Finds a name: the exact one, else its deepest wildcard, else the VIP of a reverse name.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_map_lookup_elem, bpf_skb_load_bytes},
};
use redirector_common::packet::{
    found::{Found, NameKind},
    labels::{Labels, hash, labels},
    name::WildcardEntry,
    reverse::{
        NAME6, SUFFIX4, SUFFIX4_FIRST, SUFFIX4_FIRST_MASK, SUFFIX4_LAST, SUFFIX6_LAST, address4,
        address6, digits6,
    },
    search::{CHUNK, is_same, reverse, wildcard},
};

use super::{scratch::NameScratch, settings::settings};
use crate::{
    packet::{
        maps::{RD_NAMES, RD_REVERSE, RD_WILDCARDS},
        scratch::scratch,
    },
    pools,
};

/// The exact name that was read, as [`Found`]; 0 if it is none of ours. Leaves it in lower case in
/// the scratch memory, up to its first zero.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_find_exact() -> u64 {
    let (Some(scratch), Some(settings)) = (scratch(), settings()) else { return 0 };
    // SAFETY: the scratch memory is this program's alone; the indices are below its sizes.
    let names: &mut NameScratch = unsafe { &mut (*scratch).names };
    let (raw, lower) = (&raw const names.raw, &raw mut names.lower);
    let hashed = hash(
        settings.seed,
        // SAFETY: as above.
        |at| unsafe { (*raw)[at as usize] },
        // SAFETY: as above.
        |at, word| unsafe { (*lower)[at as usize] = word },
    );
    let Some(hashed) = hashed else { return 0 };
    names.length = hashed.length;
    let Some(entry) = RD_NAMES.get_ptr(hashed.hash) else { return 0 };
    // SAFETY: an element stays readable while a program runs; the agent replaces it whole.
    let entry = unsafe { &*entry };
    let is_same = entry.length == hashed.length
        && is_same(
            hashed.length,
            // SAFETY: as above.
            |at| unsafe { (*lower)[at as usize] },
            |at| entry.name[at as usize],
        );
    if !is_same {
        return 0;
    }
    Found::source(entry.index, entry.flags, hashed.length as u32).to_bits()
}

/// Follows the labels of the name that was read. Returns its octets without the
/// final zero; 0 if it is malformed, or the root.
///
/// A function of its own: each of its 33 ends would be another start for what follows (27,000
/// instructions on 6.18).
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_labels() -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the scratch memory is this program's alone; the indices are below its sizes.
    let names: &mut NameScratch = unsafe { &mut (*scratch).names };
    let raw = &raw const names.raw;
    // SAFETY: as above.
    let Some(labels) = labels(|at| unsafe { (*raw)[at as usize] }) else { return 0 };
    [names.starts[0], names.starts[1], names.starts[2], names.starts[3]] = labels.starts;
    // A zero inside of a label is an octet of it, but of no reverse name.
    names.has_one_zero = (names.length == labels.length).into();
    labels.length
}

/// The wildcard above the name, whose octets [`rd_labels`] has counted; as [`Found`], or 0. Leaves
/// the name in reverse order in the scratch memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_find_above(skb: *mut __sk_buff, name_at: u32, length: u64) -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the scratch memory is this program's alone; the indices are below its sizes.
    let names: &mut NameScratch = unsafe { &mut (*scratch).names };
    if !reverse_name(skb, name_at, names, length) {
        return 0;
    }
    let labels = Labels { length, starts: names.starts };
    let below_first = 1 + (names.raw[0] & 0xff);
    let found = wildcard(&labels, below_first, |bits| look_up_wildcard(names, bits));
    let Some((index, flags)) = found else { return 0 };
    Found::source(index, flags, length as u32).to_bits()
}

#[inline(always)]
fn reverse_name(skb: *mut __sk_buff, name_at: u32, names: &mut NameScratch, length: u64) -> bool {
    let (chunk, reversed) = (&raw mut names.chunk, &raw mut names.reversed);
    let first = name_at + length as u32 - CHUNK;
    reverse(
        length,
        |before| {
            // SAFETY: the helper writes all of `chunk`, or fails. 42 octets of headers are before
            // the name, so the offset is not negative.
            unsafe {
                bpf_skb_load_bytes(skb.cast(), first.wrapping_sub(before), chunk.cast(), CHUNK) == 0
            }
        },
        // SAFETY: the scratch memory is this program's alone; the indices are below its sizes.
        |at| unsafe { (*chunk)[at as usize] },
        // SAFETY: as above.
        |at, word| unsafe { (*reversed)[at as usize] = word },
    )
}

#[inline(always)]
fn look_up_wildcard(names: &mut NameScratch, bits: u32) -> Option<WildcardEntry> {
    names.bits = bits;
    // SAFETY: the key is the number of bits and the octets behind it; the helper returns null or an
    // element, which stays readable while a program runs.
    unsafe {
        bpf_map_lookup_elem(
            (&raw const RD_WILDCARDS).cast_mut().cast(),
            (&raw const names.bits).cast(),
        )
        .cast::<WildcardEntry>()
        .as_ref()
        .copied()
    }
}

/// The VIP whose reverse name it is, after [`rd_find_above`] has found no wildcard.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_find_pointer() -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the scratch memory is this program's alone.
    let names: &NameScratch = unsafe { &(*scratch).names };
    if names.has_one_zero == 0 {
        return 0;
    }
    let Some(index) = pointer4(names).or_else(|| pointer6(names)) else { return 0 };
    if RD_REVERSE.get_ptr(index).is_none() {
        return 0;
    }
    Found { index, kind: NameKind::Pointer, length: names.length as u32 }.to_bits()
}

#[inline(always)]
fn pointer4(names: &NameScratch) -> Option<u32> {
    let is_reverse = names.reversed[0] == SUFFIX4_LAST
        && names.reversed[1] & SUFFIX4_FIRST_MASK == SUFFIX4_FIRST;
    if !is_reverse {
        return None;
    }
    let labels = names.length.wrapping_sub(SUFFIX4);
    pools::pool4().index(address4(names.lower[0], names.lower[1], labels)?)
}

#[inline(always)]
fn pointer6(names: &NameScratch) -> Option<u32> {
    let is_reverse =
        names.reversed[0] == SUFFIX6_LAST && names.reversed[1] & 0xff == 3 && names.length == NAME6;
    if !is_reverse {
        return None;
    }
    let lower = &names.lower;
    let numbers = [
        digits6(lower[0])?,
        digits6(lower[1])?,
        digits6(lower[2])?,
        digits6(lower[3])?,
        digits6(lower[4])?,
        digits6(lower[5])?,
        digits6(lower[6])?,
        digits6(lower[7])?,
    ];
    pools::pool6()?.index(address6(numbers))
}
