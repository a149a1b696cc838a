//! The Ethernet and IP headers of a reply.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use redirector_common::packet::header::{FRAME4_LEN, FRAME6_LEN, reply_frame4, reply_frame6};

use super::{origin::OVER_IPV6, scratch::NameScratch};
use crate::packet::{
    headers::BEHIND_IPV4,
    scratch::scratch,
    skb::{ETHERNET_LEN, store},
};

/// Turns a packet without options back to its source, whose datagram has `length` octets by now.
/// Returns 0 if it failed.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_turn_back(skb: *mut __sk_buff, origin: u32, length: u32) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the scratch memory is this program's alone.
    let names: &mut NameScratch = unsafe { &mut (*scratch).names };
    let frame = (&raw mut names.frame).cast();
    if origin & OVER_IPV6 == 0 {
        // SAFETY: the helper writes these octets of `frame`, or fails.
        if unsafe { bpf_skb_load_bytes(skb.cast(), 0, frame, FRAME4_LEN) } != 0 {
            return 0;
        }
        let [a, b, c, d, e, ..] = names.frame;
        let total = length + BEHIND_IPV4 - ETHERNET_LEN;
        let [a, b, c, d, e] = reply_frame4([a, b, c, d, e], total);
        let words = &mut names.frame;
        [words[0], words[1], words[2], words[3], words[4]] = [a, b, c, d, e];
        return store(skb, 0, &names.frame, FRAME4_LEN).into();
    }
    // SAFETY: as above.
    if unsafe { bpf_skb_load_bytes(skb.cast(), 0, frame, FRAME6_LEN) } != 0 {
        return 0;
    }
    names.frame = reply_frame6(names.frame, length);
    store(skb, 0, &names.frame, FRAME6_LEN).into()
}
