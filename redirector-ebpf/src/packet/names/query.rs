//! Answers a query, or leaves it alone.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_redirect, bpf_skb_change_type},
};
use redirector_common::{
    dns::MARK,
    packet::{
        found::{Found, NameKind},
        front::{frame4, frame6},
        header::{HEAD_LEN, is_plain_query, udp_length},
    },
};

use super::{
    find::{MAY_BE_BELOW, MAY_BE_POINTER, rd_find_above, rd_find_exact, rd_find_pointer},
    host::rd_attached,
    origin::{FROM_HOST, OVER_IPV6, udp_at},
    question::rd_question,
    read::{head, rd_read_query4, rd_read_query6, word},
    reply::{Outcome, rd_reply},
    settings::settings,
};
use crate::{
    maps::{add, counters},
    opaque,
    packet::{
        maps::{RD_ANSWERS, RD_PACKET_STATS},
        scratch::scratch,
    },
    verdict::{DROP, NEXT},
};

const UNTOUCHED: u32 = Outcome::Untouched as u32;
const BROKEN: u32 = Outcome::Broken as u32;

/// The index of every namespace's loopback interface (LOOPBACK_IFINDEX).
const LOOPBACK: u32 = 1;
/// The packet is for this host (PACKET_HOST).
const PACKET_HOST: u32 = 0;
/// The packet is received by the interface that it is redirected to (BPF_F_INGRESS).
const INTO_INTERFACE: u64 = 1;

/// A whole datagram to port 53, whose IP packet has `payload` octets behind its header.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_query(skb: *mut __sk_buff, origin: u32, payload: u32) -> i32 {
    let Some(settings) = settings() else { return NEXT };
    let udp = udp_at(origin);
    if !may_be_query(skb, (origin, udp), payload) {
        return NEXT;
    }
    let bits = find(skb, udp + HEAD_LEN);
    let Some(found) = Found::from_bits(bits) else { return NEXT };
    let levels = settings.cgroup_levels as u32;
    if origin & FROM_HOST != 0 && rd_attached(skb, levels) == 0 {
        return NEXT;
    }
    let question = rd_question(found.length, payload - HEAD_LEN);
    if question == 0 {
        return NEXT;
    }
    let outcome = rd_reply(skb, origin, payload, bits, question);
    count(outcome, found);
    match outcome {
        UNTOUCHED => NEXT,
        BROKEN => DROP,
        _ => send_back(skb, origin),
    }
}

/// The name at this offset, which was read: an exact one, else its deepest wildcard, else a VIP's
/// reverse name.
#[inline(always)]
fn find(skb: *mut __sk_buff, name_at: u32) -> u64 {
    let exact = rd_find_exact(skb, name_at);
    if exact & MAY_BE_BELOW != 0 && Found::from_bits(exact).is_none() {
        let above = rd_find_above(skb, name_at);
        if above != 0 {
            return above;
        }
    }
    if exact & MAY_BE_POINTER != 0 && Found::from_bits(exact).is_none() {
        return rd_find_pointer();
    }
    exact
}

/// Whether a datagram may be a query that is answered: not the agent's own, as long as its headers
/// say, and for one station: the address of many is no sender of a reply. Reads it.
#[inline(always)]
fn may_be_query(skb: *mut __sk_buff, (origin, udp): (u32, u32), payload: u32) -> bool {
    // SAFETY: the context has these fields.
    let (length, mark, segment) = unsafe { ((*skb).len, (*skb).mark, (*skb).gso_size) };
    let is_own = origin & FROM_HOST != 0 && mark == MARK;
    // An interface would divide a datagram with segments into several ones.
    if is_own || segment != 0 || payload > length.wrapping_sub(udp) || length < udp {
        return false;
    }
    let over_ipv4 = origin & OVER_IPV6 == 0;
    if (if over_ipv4 { rd_read_query4(skb) } else { rd_read_query6(skb) }) == 0 {
        return false;
    }
    let Some(scratch) = scratch() else { return false };
    // SAFETY: the scratch memory is this program's alone.
    let names = unsafe { &(*scratch).names };
    let head = head(names);
    let destination =
        if over_ipv4 { frame4(|at| word(names, at))[0] } else { frame6(|at| word(names, at))[0] };
    destination & 1 == 0
        && is_plain_query(head)
        && udp_length(head) == payload
        && payload > HEAD_LEN
}

/// Counts the outcome of a query for a mapped name.
#[inline(always)]
fn count(outcome: u32, found: Found) {
    let is_of_source = matches!(found.kind, NameKind::Live);
    if is_of_source
        && (outcome == Outcome::Answered as u32 || outcome == Outcome::NoData as u32)
        && let Some(answers) = counters(&RD_ANSWERS, found.index)
    {
        add(answers, 1);
    }
    let Some(stats) = counters(&RD_PACKET_STATS, 0) else { return };
    let one = opaque::number(1);
    const ANSWERED: u32 = Outcome::Answered as u32;
    const NO_DATA: u32 = Outcome::NoData as u32;
    const REVERSE: u32 = Outcome::Reverse as u32;
    const SERVFAIL: u32 = Outcome::ServFail as u32;
    match outcome {
        ANSWERED => add(&mut stats.names_answered, one),
        NO_DATA => add(&mut stats.names_nodata, one),
        REVERSE => add(&mut stats.names_reverse, one),
        SERVFAIL => add(&mut stats.names_servfail, one),
        BROKEN => add(&mut stats.rewrite_failed, one),
        _ => add(&mut stats.names_failed, one),
    }
}

/// Sends the reply to where the query came from.
#[inline(always)]
fn send_back(skb: *mut __sk_buff, origin: u32) -> i32 {
    // SAFETY: the context has this field.
    let interface = unsafe { (*skb).ifindex };
    if origin & FROM_HOST == 0 {
        // SAFETY: takes numbers only.
        return unsafe { bpf_redirect(interface, 0) } as i32;
    }
    if interface == LOOPBACK {
        return NEXT;
    }
    // SAFETY: the context and numbers.
    unsafe {
        bpf_skb_change_type(skb, PACKET_HOST);
        bpf_redirect(interface, INTO_INTERFACE) as i32
    }
}
