//! Reads a query's frame, from its first octet to the end of its question, by one call.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use redirector_common::packet::{
    front::{BEFORE_NAME, FRONT4_LEN, FRONT6_LEN},
    header::QueryHead,
};

use super::scratch::{NameScratch, READ};
use crate::{opaque, packet::scratch::scratch};

/// Reads the frame over IPv4. Returns 0 if it failed. A function for each protocol: the compiler
/// would merge the two calls into one that writes to a place which a branch has chosen.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_read_query4(skb: *mut __sk_buff) -> u32 {
    read::<FRONT4_LEN>(skb).into()
}

/// As [`rd_read_query4`], over IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_read_query6(skb: *mut __sk_buff) -> u32 {
    read::<FRONT6_LEN>(skb).into()
}

/// `FRONT`: the octets before the name.
#[inline(always)]
fn read<const FRONT: u32>(skb: *mut __sk_buff) -> bool {
    let Some(scratch) = scratch() else { return false };
    // SAFETY: a field of the scratch memory, which is this program's alone.
    let names = unsafe { &raw mut (*scratch).names };
    let most = u64::from(FRONT + READ);
    // SAFETY: the context has this field.
    let mut octets = opaque::reload(u64::from(unsafe { (*skb).len }));
    // The comparisons are for the verifier, which must know that the length is from 1 to `most`; a
    // comparison with 0 gives it no bound: "R3 min value is outside of the allowed memory range"
    // (5.10, 6.1).
    if octets > most {
        octets = most;
    }
    let octets = opaque::reload(octets);
    if octets < u64::from(FRONT) {
        return false;
    }
    let octets = opaque::reload(octets);
    if octets > most {
        return false;
    }
    // SAFETY: `raw` follows `before`, of which `FRONT` octets are written: `most` in all.
    unsafe {
        let to = (&raw mut (*names).before).cast::<u8>().add((BEFORE_NAME - FRONT) as usize);
        bpf_skb_load_bytes(skb.cast(), 0, to.cast(), octets as u32) == 0
    }
}

/// A word of what was read; see [`redirector_common::packet::front`].
#[inline(always)]
pub(super) fn word(names: &NameScratch, at: u32) -> u64 {
    match names.before.get(at as usize) {
        Some(word) => *word,
        None => names.raw[at as usize - names.before.len()],
    }
}

/// The query's UDP and DNS headers.
#[inline(always)]
pub(super) fn head(names: &NameScratch) -> QueryHead {
    redirector_common::packet::front::head(|at| word(names, at))
}
