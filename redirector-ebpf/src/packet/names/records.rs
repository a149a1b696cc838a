//! The records of a reply.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_csum_diff, bpf_skb_store_bytes},
};
use redirector_common::{
    addr::{Ip4Be, Ip6Be},
    packet::{
        answer::ReplyRecord,
        checksum::{at_offset, fold, sum},
        name::NAME_OCTETS,
        record::{A_LEN, AAAA_LEN, OPT_LEN, PTR_HEAD, SOA_LEN, a, aaaa, opt, ptr, soa},
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
    let words = words.into_iter().chain([0; 3]);
    for (place, word) in names.records.iter_mut().zip(words) {
        // SAFETY: `place` is a word of the scratch memory.
        unsafe { core::ptr::write_volatile(place, word) }
    }
}

/// A reply has an EDNS record: the lowest bit of an argument of [`rd_put_records`]. The next octets
/// are the upper bits of its code and those of its flags.
pub(super) const HAS_EDNS: u32 = 1;

/// Writes the record of this [`ReplyRecord`] at an offset, and the EDNS record. Returns their sum,
/// as if the offset was even.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_put_records(
    skb: *mut __sk_buff,
    at: u32,
    record: u32,
    target: u32,
    edns: u32,
) -> u64 {
    let Some(scratch) = scratch() else { return UNREADABLE };
    // SAFETY: the scratch memory is this program's alone.
    let names: &mut NameScratch = unsafe { &mut (*scratch).names };
    const PTR: u32 = ReplyRecord::Ptr as u32;
    let opt = if edns == 0 { [0; 2] } else { opt((edns >> 8) as u8, (edns >> 16) as u8) };
    if record == PTR {
        return put_pointer(skb, (at, target), names, (edns, opt));
    }
    let length = append(names, record, opt[0]) + if edns == 0 { 0 } else { OPT_LEN };
    let words = &names.records;
    let total = sum(words[0])
        + sum(words[1])
        + sum(words[2])
        + sum(words[3])
        + sum(words[4])
        + sum(words[5]);
    if length == 0 || put(skb, at, &names.records, length) { total } else { UNREADABLE }
}

/// Writes the EDNS record, all of whose octets are in one word, behind the record of this
/// [`ReplyRecord`]. Returns that record's length. Without branches, of which the compiler would
/// make one write to a place that a branch has chosen.
#[inline(always)]
fn append(names: &mut NameScratch, record: u32, opt: u64) -> u32 {
    let [none, a, aaaa, soa] =
        [ReplyRecord::None, ReplyRecord::A, ReplyRecord::Aaaa, ReplyRecord::Soa]
            .map(|other| opaque::reload(u64::from(record == other as u32)));
    let opt = opaque::reload(opt);
    or(&mut names.records[0], opt * none);
    or(&mut names.records[2], opt * a);
    or(&mut names.records[3], (opt << 32) * aaaa);
    or(&mut names.records[4], ((opt >> 32) * aaaa) | ((opt << 24) * soa));
    or(&mut names.records[5], (opt >> 40) * soa);
    a as u32 * A_LEN + aaaa as u32 * AAAA_LEN + soa as u32 * SOA_LEN
}

/// Adds bits to a word of the scratch memory.
#[inline(always)]
fn or(place: &mut u64, bits: u64) {
    // SAFETY: the caller's place.
    unsafe { core::ptr::write_volatile(place, *place | bits) }
}

/// Writes a PTR record with its name, and the EDNS record.
#[inline(always)]
fn put_pointer(
    skb: *mut __sk_buff,
    (at, target): (u32, u32),
    names: &mut NameScratch,
    (edns, opt): (u32, [u64; 2]),
) -> u64 {
    let [head, tail] = [names.records[0], names.records[1]];
    // SAFETY: the target has `NAME_OCTETS` octets, with zeros behind the name.
    let name = fold(unsafe {
        let target = (&raw mut names.target).cast();
        bpf_csum_diff(core::ptr::null_mut(), 0, target, NAME_OCTETS as u32, 0) as u64
    });
    let written =
        store(skb, at, &names.records, PTR_HEAD) && put(skb, at + PTR_HEAD, &names.target, target);
    if !written {
        return UNREADABLE;
    }
    let total = sum(head) + sum(tail) + name;
    if edns == 0 {
        return total;
    }
    names.opt = opt;
    if !store(skb, at + PTR_HEAD + target, &names.opt, OPT_LEN) {
        return UNREADABLE;
    }
    total + at_offset(sum(opt[0]), (PTR_HEAD + target).into())
}

/// Writes from 1 to the size of `words` octets, as the verifier must know.
#[inline(always)]
fn put<const N: usize>(skb: *mut __sk_buff, at: u32, words: &[u64; N], octets: u32) -> bool {
    const { assert!(N.is_power_of_two()) };
    let most = N as u64 * 8 - 1;
    let octets = (opaque::reload(u64::from(octets).wrapping_sub(1)) & most) + 1;
    // SAFETY: `words` has that many octets.
    unsafe {
        let from = (&raw const *words).cast_mut().cast();
        bpf_skb_store_bytes(skb, at, from, octets as u32, 0) == 0
    }
}
