//! Keeps the header of a SYN, to send it again when the backend refuses it.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};

use super::{
    scratch::work,
    work::{get, set},
};
use crate::opaque;

/// Octets of a TCP header without options.
const HEADER: u32 = 20;
const MAX_OPTIONS: u64 = 40;

/// Copies the SYN of `work.segment` to `work.entry`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_first_syn(skb: *mut __sk_buff) -> i32 {
    let Some(work) = work() else { return 0 };
    let length = u64::from(get!(work.segment.header_length).wrapping_sub(HEADER));
    set!(work.entry.syn.window = get!(work.segment.window) as u16);
    set!(work.entry.syn.flags = get!(work.segment.flags) as u8);
    set!(work.entry.syn.options_length = 0);
    for at in 0..5 {
        // SAFETY: the field has five words. In one assignment the compiler would call `memset`.
        unsafe { core::ptr::write_volatile(&raw mut (*work).entry.syn.options[at], 0) };
    }
    // Two comparisons that the compiler can't merge, of which older verifiers would learn nothing:
    // "invalid zero-sized read" (5.10 and 6.12).
    let length = opaque::number(length);
    if length < 4 {
        return 0;
    }
    let length = opaque::number(length);
    if length > MAX_OPTIONS {
        return 0;
    }
    let at = get!(work.segment.at) + HEADER;
    // SAFETY: the field has room for the most options.
    let loaded = unsafe {
        let to = (&raw mut (*work).entry.syn.options).cast();
        bpf_skb_load_bytes(skb.cast(), at, to, length as u32)
    };
    if loaded == 0 {
        set!(work.entry.syn.options_length = length as u8);
    }
    0
}
