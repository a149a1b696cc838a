//! Writes the headers of a reply.

use aya_ebpf::bindings::__sk_buff;
use redirector_common::packet::{
    front::{FRONT4_LEN, FRONT6_LEN, frame4, frame6, front4, front6},
    header::{QueryHead, reply_frame4, reply_frame6},
};

use super::{origin::OVER_IPV6, read::word, scratch::NameScratch};
use crate::packet::{
    headers::BEHIND_IPV4,
    skb::{ETHERNET_LEN, store},
};

/// Writes everything before the name: the packet goes back to its source. Its datagram has `length`
/// octets by now.
#[inline(always)]
pub(super) fn put_front(
    skb: *mut __sk_buff,
    names: &mut NameScratch,
    head: QueryHead,
    (origin, length): (u32, u32),
) -> bool {
    let read = |at| word(names, at);
    if origin & OVER_IPV6 == 0 {
        let total = length + BEHIND_IPV4 - ETHERNET_LEN;
        let front = front4(reply_frame4(frame4(read), total), head);
        write(names, &front);
        return store(skb, 0, &names.front, FRONT4_LEN);
    }
    let front = front6(reply_frame6(frame6(read), length), head);
    write(names, &front);
    store(skb, 0, &names.front, FRONT6_LEN)
}

/// Word by word: the compiler would call a function that copies octets in a loop.
#[inline(always)]
fn write(names: &mut NameScratch, front: &[u64]) {
    for (place, word) in names.front.iter_mut().zip(front) {
        // SAFETY: `place` is a word of the scratch memory.
        unsafe { core::ptr::write_volatile(place, *word) }
    }
}
