//! What is behind a query's question: its EDNS record, and octets that mean nothing.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_csum_diff, bpf_skb_load_bytes},
};
use redirector_common::packet::{
    checksum::{fold, sum},
    record::OPT_LEN,
};

use super::scratch::MAX_TAIL;
use crate::{opaque, packet::scratch::scratch};

/// The sum of octets that could not be read or written.
pub(super) const UNREADABLE: u64 = u64::MAX;

/// The sum of `octets` octets at this offset, at most [`MAX_TAIL`], as if the offset was even. With
/// `edns` not 0 they begin with the EDNS record that the question's reader has left.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_tail_sum(skb: *mut __sk_buff, at: u32, octets: u32, edns: u32) -> u64 {
    if octets == 0 {
        return 0;
    }
    let Some(scratch) = scratch() else { return UNREADABLE };
    if octets == OPT_LEN && edns != 0 {
        // SAFETY: the scratch memory is this program's alone.
        let [first, second] = unsafe { (*scratch).names.opt };
        return sum(first) + (second & 0xff_ffff);
    }
    if octets > MAX_TAIL {
        return UNREADABLE;
    }
    // From 1 to 512, as the verifier must know.
    let size = (opaque::reload(u64::from(octets).wrapping_sub(1)) & 0x1ff) + 1;
    // SAFETY: `tail` has one word more than `MAX_TAIL`, so that the last octets, which the helper
    // sums in words, have zeros behind them.
    unsafe {
        let tail = (&raw mut (*scratch).names.tail).cast::<u32>();
        let last = opaque::reload(size / 4) & 0x7f;
        core::ptr::write_volatile(tail.add(last as usize), 0);
        if bpf_skb_load_bytes(skb.cast(), at, tail.cast(), size as u32) != 0 {
            return UNREADABLE;
        }
        let octets = opaque::reload(size + 3) & 0x1fc;
        fold(bpf_csum_diff(core::ptr::null_mut(), 0, tail, octets as u32, 0) as u64)
    }
}
