//! Replaces the other side's address and the ports of a segment, with every checksum.
//!
//! The TCP checksum is changed by a helper that knows whether the device completes it
//! (CHECKSUM_PARTIAL): a change of the pseudo-header then changes it, one of the ports does not.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_PSEUDO_HDR},
    helpers::generated::bpf_l4_csum_replace,
};

use super::{
    flow_tables::count,
    headers::{BEHIND_IPV4, BEHIND_IPV6},
    scratch::work,
    segment::FROM_GUEST,
    skb::{ETHERNET_LEN, store},
    work::{Work, address, get},
};
use crate::verdict::{DROP, NEXT};

/// Offset of the checksum in a TCP header.
pub(crate) const TCP_CHECK: u32 = 16;

/// A difference of two words as the kernel adds it to a checksum.
#[inline(always)]
pub(crate) fn difference(old: u32, new: u32) -> u64 {
    u64::from(!old) + u64::from(new)
}

/// Folds a sum into 32 bits, with its carries.
#[inline(always)]
pub(crate) fn fold32(sum: u64) -> u64 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    (sum & 0xffff_ffff) + (sum >> 32)
}

/// Folds a sum into 16 bits.
#[inline(always)]
pub(crate) fn fold16(sum: u64) -> u64 {
    let sum = fold32(sum);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

/// The difference of two addresses, each of two words.
#[inline(always)]
pub(crate) fn address_difference(old: [u64; 2], new: [u64; 2]) -> u64 {
    let [a, b] = [0, 1].map(|at| {
        difference(old[at] as u32, new[at] as u32)
            + difference((old[at] >> 32) as u32, (new[at] >> 32) as u32)
    });
    fold32(a + b)
}

/// Replaces what `work.target` says, in an IPv4 segment from either side, whose key is `work.key`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_translate4(skb: *mut __sk_buff, from: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    let (at, old) = (get!(work.segment.at), get!(work.key.remote.0[3]));
    let new = get!(work.target.peer.0[3]);
    let ports = new_ports(work, from);
    if !fix_checksum(skb, work, fold32(difference(old, new)), ports) {
        return failed();
    }
    let check = fold16(u64::from(!get!(work.segment.check) & 0xffff) + difference(old, new));
    let check = !check & 0xffff;
    let guest = u64::from(get!(work.key.guest.0[3]));
    let (source, destination) =
        if from == FROM_GUEST { (guest, u64::from(new)) } else { (u64::from(new), guest) };
    // Checksum, source, destination and, without options, ports are adjacent.
    let header =
        [check | source << 16 | destination << 48, destination >> 16 | u64::from(ports) << 16];
    let done = if at == BEHIND_IPV4 {
        store(skb, ETHERNET_LEN + 10, &header, 14)
    } else {
        store(skb, ETHERNET_LEN + 10, &header, 10) && store(skb, at, &u64::from(ports), 4)
    };
    if done { NEXT } else { failed() }
}

/// As [`rd_translate4`], in an IPv6 segment.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_translate6(skb: *mut __sk_buff, from: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    let (old, new) = (address!(work.key.remote), address!(work.target.peer));
    let ports = new_ports(work, from);
    if !fix_checksum(skb, work, address_difference(old, new), ports) {
        return failed();
    }
    let ports = u64::from(ports);
    let at = ETHERNET_LEN + if from == FROM_GUEST { 24 } else { 8 };
    if store(skb, at, &new, 16) && store(skb, BEHIND_IPV6, &ports, 4) { NEXT } else { failed() }
}

/// The two ports that the frame gets.
#[inline(always)]
fn new_ports(work: *mut Work, from: u32) -> u32 {
    let (guest, peer) =
        (u32::from(get!(work.target.guest_port.0)), u32::from(get!(work.target.peer_port.0)));
    if from == FROM_GUEST { guest | peer << 16 } else { peer | guest << 16 }
}

#[inline(always)]
fn fix_checksum(skb: *mut __sk_buff, work: *mut Work, address: u64, ports: u32) -> bool {
    let (check, old) = (get!(work.segment.at) + TCP_CHECK, get!(work.segment.ports));
    add(skb, check, address, BPF_F_PSEUDO_HDR)
        && (ports == old || add(skb, check, fold32(difference(old, ports)), 0))
}

/// Adds to a TCP checksum. Unlike UDP's, one of 0 is a checksum.
#[inline(always)]
pub(crate) fn add(skb: *mut __sk_buff, at: u32, difference: u64, flags: u32) -> bool {
    // SAFETY: the context; the helper checks the offset.
    unsafe { bpf_l4_csum_replace(skb, at, 0, difference, flags.into()) == 0 }
}

#[inline(always)]
fn failed() -> i32 {
    count(|stats| &mut stats.rewrite_failed);
    DROP
}
