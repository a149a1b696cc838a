//! Finds a name: the exact one, else its deepest wildcard, else the VIP of a reverse name.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_map_lookup_elem, bpf_skb_load_bytes},
};
use redirector_common::packet::{
    found::{Found, NameKind},
    labels::hash,
    name::{NameEntry, NameSettings, SHORT_OCTETS, ShortEntry, WildcardEntry},
    name_filter::{Tail, eight, last_word, lengths, place, sixteen},
    octets::to_lower,
    reverse::{
        NAME6, SUFFIX4, SUFFIX4_FIRST, SUFFIX4_LAST, SUFFIX6_LAST, address4, address6, digits6,
    },
    search::{CHUNK, is_same, reverse, wildcard},
};

use super::{scratch::NameScratch, settings::settings, starts::rd_starts_label};
use crate::{
    opaque,
    packet::{
        maps::{RD_LONG_NAMES, RD_NAME_FILTER, RD_NAMES, RD_REVERSE, RD_WILDCARDS},
        scratch::scratch,
    },
    pools,
};

/// A result of [`rd_find_exact`], which is no [`Found`]: the name may be below a wildcard.
pub(super) const MAY_BE_BELOW: u64 = 1;
/// The name may be a reverse name.
pub(super) const MAY_BE_POINTER: u64 = 2;

/// The exact name that was read, as [`Found`]; `MAY_BE_` bits if it is none of ours. Leaves it in
/// lower case in the scratch memory, up to its first zero.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_find_exact(skb: *mut __sk_buff, name_at: u32) -> u64 {
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
    (names.hash, names.length) = (hashed.hash, hashed.length);
    search((skb, name_at), names, settings)
}

/// Continues with the hash and the length in the scratch memory: what the verifier knows of them at
/// each end of the loop would be another start for what follows.
#[inline(always)]
fn search(
    (skb, name_at): (*mut __sk_buff, u32),
    names: &mut NameScratch,
    settings: &NameSettings,
) -> u64 {
    let names = opaque::pointer(&raw mut *names);
    // SAFETY: the same memory.
    let names = unsafe { &mut *names };
    let (hash, length) = (names.hash, names.length);
    if passes(names, hash) {
        let found = if length > SHORT_OCTETS { long(names, length) } else { short(names, length) };
        if found != 0 {
            return found;
        }
    }
    if !read_last(skb, name_at, names) {
        return 0;
    }
    let pointer = match names.last[1] {
        SUFFIX4_LAST | SUFFIX6_LAST => MAY_BE_POINTER,
        _ => 0,
    };
    let NameSettings { zones, seed, .. } = *settings;
    let is_below = zones & lengths::SHORT != 0
        || (zones & lengths::EIGHT != 0 && passes(names, eight(seed, names.last)))
        || (zones & lengths::SIXTEEN != 0 && passes(names, sixteen(seed, names.last)));
    pointer | if is_below { MAY_BE_BELOW } else { 0 }
}

/// Whether the filter has the bit of this hash.
#[inline(always)]
fn passes(names: &mut NameScratch, hash: u64) -> bool {
    let last_index = u32::from_be(!pools::pool4().mask);
    let (word, bit) = place(hash, last_word(last_index));
    names.filter_word = word;
    // SAFETY: the map's types.
    let word: Option<&u64> = unsafe { look_up(&RD_NAME_FILTER, &raw const names.filter_word) };
    word.is_some_and(|word| word & bit != 0)
}

#[inline(always)]
fn short(names: &NameScratch, length: u64) -> u64 {
    // SAFETY: the map's types; the agent replaces an element whole.
    let entry: Option<&ShortEntry> = unsafe { look_up(&RD_NAMES, &raw const names.hash) };
    let Some(entry) = entry else { return 0 };
    let other = |at: u32| entry.name.get(at as usize).copied().unwrap_or_default();
    let is_same =
        u64::from(entry.length) == length && is_same(length, |at| names.lower[at as usize], other);
    if !is_same {
        return 0;
    }
    Found::source(entry.index, entry.flags.into(), length as u32).to_bits()
}

#[inline(always)]
fn long(names: &NameScratch, length: u64) -> u64 {
    // SAFETY: as above.
    let entry: Option<&NameEntry> = unsafe { look_up(&RD_LONG_NAMES, &raw const names.hash) };
    let Some(entry) = entry else { return 0 };
    let is_same = entry.length == length
        && is_same(length, |at| names.lower[at as usize], |at| entry.name[at as usize]);
    if !is_same {
        return 0;
    }
    Found::source(entry.index, entry.flags, length as u32).to_bits()
}

/// The element of a map. Its key is in the scratch memory: behind a store to the stack the verifier
/// may put a speculation barrier.
///
/// # Safety
///
/// The types are those of the map, whose elements do not change but for whole words.
#[inline(always)]
unsafe fn look_up<M, K, V>(map: &M, key: *const K) -> Option<&'static V> {
    // SAFETY: the helper reads the key, and returns null or an element, which stays readable while
    // a program runs.
    unsafe {
        bpf_map_lookup_elem((&raw const *map).cast_mut().cast(), key.cast()).cast::<V>().as_ref()
    }
}

/// The length of the name, read again: what the verifier knows of it at each end of a loop would be
/// another start for what follows.
#[inline(always)]
fn length(names: &NameScratch) -> u64 {
    // SAFETY: the field is an integer.
    unsafe { (&raw const names.length).read_volatile() }
}

/// Reads the last sixteen octets of the name at an offset. Those before a shorter one are
/// arbitrary. Returns false if it failed.
///
/// From the packet, not from the scratch memory at the name's end: an addition of a variable to a
/// pointer makes the verifier follow every later function with each value apart (145,048
/// instructions instead of 32,210 on 6.18, no end on 5.10 and 6.1).
#[inline(always)]
fn read_last(skb: *mut __sk_buff, name_at: u32, names: &mut NameScratch) -> bool {
    const OCTETS: u32 = size_of::<Tail>() as u32;
    let from = (name_at + length(names) as u32).wrapping_sub(OCTETS);
    let last = &raw mut names.last;
    // SAFETY: the helper writes all of `last`, or fails. 42 octets of headers are before the name,
    // so the offset is not negative.
    if unsafe { bpf_skb_load_bytes(skb.cast(), from, last.cast(), OCTETS) } != 0 {
        return false;
    }
    names.last = [to_lower(names.last[0]), to_lower(names.last[1])];
    true
}

/// The wildcard above the name that was read, which is at this offset; as [`Found`], or 0. Leaves
/// the name in reverse order in the scratch memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_find_above(skb: *mut __sk_buff, name_at: u32) -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the scratch memory is this program's alone; the indices are below its sizes.
    let names: &mut NameScratch = unsafe { &mut (*scratch).names };
    if !reverse_name(skb, name_at, names) {
        return 0;
    }
    let below_first = 1 + (names.raw[0] & 0xff);
    let length = length(names);
    let starts_label = |at: u64| rd_starts_label(at as u32) != 0;
    let found = wildcard(length, below_first, starts_label, |bits| look_up_wildcard(names, bits));
    let Some((index, flags)) = found else { return 0 };
    Found::source(index, flags, length as u32).to_bits()
}

#[inline(always)]
fn reverse_name(skb: *mut __sk_buff, name_at: u32, names: &mut NameScratch) -> bool {
    let length = length(names);
    let (chunk, reversed) = (&raw mut names.chunk, &raw mut names.reversed);
    let first = name_at + length as u32 - CHUNK;
    reverse(
        length,
        |before| {
            // SAFETY: as for the last octets.
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
    // SAFETY: the key is the number of bits and the octets behind it.
    let entry: Option<&WildcardEntry> = unsafe { look_up(&RD_WILDCARDS, &raw const names.bits) };
    entry.copied()
}

/// The VIP whose reverse name it is, after [`rd_find_above`] has found no wildcard. All octets of a
/// reverse name are compared, so none of its labels has a zero.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_find_pointer() -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the scratch memory is this program's alone.
    let names: &NameScratch = unsafe { &(*scratch).names };
    let Some(index) = pointer4(names).or_else(|| pointer6(names)) else { return 0 };
    if RD_REVERSE.get_ptr(index).is_none() {
        return 0;
    }
    Found { index, kind: NameKind::Pointer, length: names.length as u32 }.to_bits()
}

#[inline(always)]
fn pointer4(names: &NameScratch) -> Option<u32> {
    if names.last[1] != SUFFIX4_LAST || names.last[0] >> 24 != SUFFIX4_FIRST {
        return None;
    }
    let labels = names.length.wrapping_sub(SUFFIX4);
    pools::pool4().index(address4(names.lower[0], names.lower[1], labels)?)
}

#[inline(always)]
fn pointer6(names: &NameScratch) -> Option<u32> {
    let is_reverse =
        names.last[1] == SUFFIX6_LAST && names.last[0] >> 56 == 3 && names.length == NAME6;
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
