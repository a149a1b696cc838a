//! The record of a reply.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_csum_diff, bpf_skb_store_bytes},
};
use redirector_common::{
    addr::{Ip4Be, Ip6Be},
    packet::{
        answer::ReplyRecord,
        checksum::{fold, sum},
        name::NAME_OCTETS,
        record::{A_LEN, AAAA_LEN, PTR_HEAD, SOA_LEN, a, aaaa, ptr, soa},
        search::copy,
    },
};

use super::{scratch::NameScratch, tail::UNREADABLE};
use crate::{
    opaque,
    packet::{maps::RD_REVERSE, scratch::scratch, skb::store},
    pools,
};

/// Copies the source of a VIP. Returns the octets of its name; 0 if it has none by now.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_target(index: u32) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let Some(entry) = RD_REVERSE.get_ptr(index) else { return 0 };
    // SAFETY: an element stays readable while a program runs; the scratch memory is this program's
    // alone.
    let (entry, names) = unsafe { (&*entry, &mut (*scratch).names) };
    let target = &raw mut names.target;
    copy(
        |at| entry.name[at as usize],
        // SAFETY: as above; the index is below the size.
        |at, word| unsafe { (&raw mut (*target)[at as usize]).write_volatile(word) },
    );
    entry.length as u32
}

/// The words of a record, with zeros behind them; of a PTR record, those before its name.
#[inline(always)]
pub(super) fn record_words(
    names: &mut NameScratch,
    (record, index, target): (ReplyRecord, u32, u32),
    ttl: u32,
) {
    let words = match record {
        ReplyRecord::None => [0; 5],
        ReplyRecord::A => {
            let base = pools::pool4().base;
            let [first, second] = a(ttl, Ip4Be(base.0 | index.to_be()));
            [first, second, 0, 0, 0]
        }
        ReplyRecord::Aaaa => {
            let address = pools::pool6().map_or_else(Ip6Be::default, |pool| pool.at(index));
            let [first, second, third, fourth] = aaaa(ttl, address);
            [first, second, third, fourth, 0]
        }
        ReplyRecord::Soa => soa(ttl),
        ReplyRecord::Ptr => {
            let [first, second] = ptr(ttl, target as u16);
            [first, second, 0, 0, 0]
        }
    };
    // Word by word: the compiler would call a function that writes octets in a loop.
    for (place, word) in names.record.iter_mut().zip(words) {
        // SAFETY: `place` is a word of the scratch memory.
        unsafe { core::ptr::write_volatile(place, word) }
    }
}

/// Writes the record of this [`ReplyRecord`] at an offset. Returns its sum.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_put_record(
    skb: *mut __sk_buff,
    at: u32,
    record: u32,
    target: u32,
) -> u64 {
    let Some(scratch) = scratch() else { return UNREADABLE };
    // SAFETY: the scratch memory is this program's alone.
    let names: &mut NameScratch = unsafe { &mut (*scratch).names };
    const A: u32 = ReplyRecord::A as u32;
    const AAAA: u32 = ReplyRecord::Aaaa as u32;
    const SOA: u32 = ReplyRecord::Soa as u32;
    const PTR: u32 = ReplyRecord::Ptr as u32;
    let words = &names.record;
    let mut total = sum(words[0]) + sum(words[1]) + sum(words[2]) + sum(words[3]) + sum(words[4]);
    let written = match record {
        A => store(skb, at, words, A_LEN),
        AAAA => store(skb, at, words, AAAA_LEN),
        SOA => store(skb, at, words, SOA_LEN),
        PTR => {
            // SAFETY: the target has `NAME_OCTETS` octets, with zeros behind the name.
            total += fold(unsafe {
                let target = (&raw mut names.target).cast();
                bpf_csum_diff(core::ptr::null_mut(), 0, target, NAME_OCTETS as u32, 0) as u64
            });
            store(skb, at, words, PTR_HEAD) && put_target(skb, at + PTR_HEAD, names, target)
        }
        _ => true,
    };
    if written { total } else { UNREADABLE }
}

#[inline(always)]
fn put_target(skb: *mut __sk_buff, at: u32, names: &mut NameScratch, octets: u32) -> bool {
    // From 1 to `NAME_OCTETS`, as the verifier must know.
    let octets = (opaque::reload(u64::from(octets).wrapping_sub(1)) & (NAME_OCTETS as u64 - 1)) + 1;
    // SAFETY: the target has `NAME_OCTETS` octets.
    unsafe {
        let target = (&raw const names.target).cast();
        bpf_skb_store_bytes(skb, at, target, octets as u32, 0) == 0
    }
}
