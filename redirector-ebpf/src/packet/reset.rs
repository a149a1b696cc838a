//! Answers a segment of a guest with a reset, in place.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_redirect, bpf_skb_change_tail},
};
use redirector_common::decide::tcp::{ACK, FIN, RST, SYN};

use super::{
    built::{self, TCP_HEADER},
    flow_tables::count,
    headers::{Access, BEHIND_IPV6, Ipv4, Ipv6},
    rewrite::{difference, fold16},
    scratch::work,
    skb::{ETHERNET_LEN, store, swap_macs},
    work::{Work, get},
};
use crate::verdict::DROP;

/// The time to live of what is sent here.
const TTL: u64 = 64;

/// The segment in `work.segment` becomes a reset for the guest that sent it (RFC 9293 section
/// 3.10.7.1).
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_reset(skb: *mut __sk_buff) -> i32 {
    let Some(work) = work() else { return DROP };
    let flags = get!(work.segment.flags);
    let length = get!(work.segment.at) + TCP_HEADER;
    // SAFETY: the helper checks the length.
    let cut = unsafe { bpf_skb_change_tail(skb, length, 0) } as i32 == 0;
    if flags & RST != 0 || !cut {
        return DROP;
    }
    let sum = if get!(work.segment.v6) == 0 { turn4(skb, work) } else { turn6(skb) };
    let (sequence, acknowledgment, answer) = if flags & ACK != 0 {
        (get!(work.segment.acknowledgment), 0, RST)
    } else {
        let end = get!(work.segment.payload) + (flags & SYN) / SYN + (flags & FIN) / FIN;
        (0, get!(work.segment.sequence).wrapping_add(end), RST | ACK)
    };
    let ports = get!(work.segment.ports);
    let header = [
        u64::from(ports.rotate_left(16)) | u64::from(sequence.to_be()) << 32,
        u64::from(acknowledgment.to_be()) | 0x50 << 32 | u64::from(answer) << 40,
        0,
    ];
    if sum == 0 || !built::write(skb, get!(work.segment.at), header, sum) || !swap_macs(skb) {
        return DROP;
    }
    count(|stats| &mut stats.resets_sent);
    // SAFETY: the context has this field; the helper takes integers only.
    unsafe { bpf_redirect((*skb).ifindex, 0) as i32 }
}

/// Exchanges the addresses and sets the length. Returns the sum of the pseudo-header, 0 on failure.
#[inline(always)]
fn turn4(skb: *mut __sk_buff, work: *mut Work) -> u64 {
    let Some(ip) = Ipv4::of(skb, Access::Copy) else { return 0 };
    let (source, destination) = (ip.source().0, ip.destination().0);
    let length = u64::from(((get!(work.segment.at) - ETHERNET_LEN + TCP_HEADER) as u16).to_be());
    let (old_length, old_life) = (ip.first >> 16 & 0xffff, ip.second & 0xffff);
    let life = old_life & 0xff00 | TTL;
    let change =
        difference(old_length as u32, length as u32) + difference(old_life as u32, life as u32);
    let check = !fold16((!(ip.second >> 16) & 0xffff) + change) & 0xffff;
    let header = [
        ip.first & !0xffff_0000 | length << 16,
        life | check << 16 | u64::from(destination) << 32,
        u64::from(source),
    ];
    if !store(skb, ETHERNET_LEN, &header, 20) {
        return 0;
    }
    u64::from(source) + u64::from(destination) + built::pseudo_header(TCP_HEADER)
}

/// As [`turn4`].
#[inline(always)]
fn turn6(skb: *mut __sk_buff) -> u64 {
    let Some(ip) = Ipv6::of(skb, Access::Copy) else { return 0 };
    let length = u64::from((TCP_HEADER as u16).to_be());
    let header = [
        ip.first & 0x00ff_0000_ffff_ffff | length << 32 | TTL << 56,
        ip.destination[0],
        ip.destination[1],
        ip.source[0],
        ip.source[1],
    ];
    if !store(skb, ETHERNET_LEN, &header, BEHIND_IPV6 - ETHERNET_LEN) {
        return 0;
    }
    built::sum_of([ip.source[0], ip.source[1], ip.destination[0], ip.destination[1]])
        + built::pseudo_header(TCP_HEADER)
}
