//! TCP of guests, and ICMP errors about it: what is not ours leaves here.

use aya_ebpf::bindings::__sk_buff;
use redirector_common::packet::flow::{filter_bit4, filter_bit6};

use super::{
    flow_tables::{count, flows_of},
    guest,
    headers::{Ipv4, Ipv6},
    icmp,
    maps::RD_BKND_FILTER,
    replies,
    segment::TCP,
};
use crate::{maps::element, pools, verdict::NEXT};

/// The number of ICMP in an IPv4 header.
const ICMP: u8 = 1;
/// The number of ICMPv6 in an IPv6 header.
const ICMP6: u8 = 58;
/// The number of a fragment header.
const FRAGMENT: u8 = 44;

/// An IPv4 packet from a guest that is no query.
#[inline(always)]
pub(crate) fn ingress4(skb: *mut __sk_buff, ip: Ipv4) -> i32 {
    if pools::pool4().index(ip.destination()).is_none() {
        return NEXT;
    }
    if ip.is_fragment() {
        count(|stats| &mut stats.fragments);
        return NEXT;
    }
    match ip.protocol() {
        TCP => guest::guest4(skb),
        ICMP => icmp::rd_icmp4(skb, icmp::FROM_GUEST),
        _ => NEXT,
    }
}

/// An IPv6 packet from a guest that is no query.
#[inline(always)]
pub(crate) fn ingress6(skb: *mut __sk_buff, ip: Ipv6) -> i32 {
    if pools::pool6().and_then(|pool| pool.index(ip.destination())).is_none() {
        return NEXT;
    }
    match ip.protocol() {
        TCP => guest::guest6(skb),
        ICMP6 => icmp::rd_icmp6(skb, icmp::FROM_GUEST),
        FRAGMENT => {
            count(|stats| &mut stats.fragments);
            NEXT
        }
        _ => NEXT,
    }
}

/// An IPv4 packet to a guest that is no query.
#[inline(always)]
pub(crate) fn egress4(skb: *mut __sk_buff, ip: Ipv4) -> i32 {
    match ip.protocol() {
        TCP if may_be_reply(skb, filter_bit4(ip.source())) && !ip.is_fragment() => {
            replies::reply4(skb)
        }
        ICMP if !ip.is_fragment() => icmp::rd_icmp4(skb, icmp::TO_GUEST),
        _ => NEXT,
    }
}

/// An IPv6 packet to a guest that is no query.
#[inline(always)]
pub(crate) fn egress6(skb: *mut __sk_buff, ip: Ipv6) -> i32 {
    match ip.protocol() {
        TCP if may_be_reply(skb, filter_bit6(ip.source())) => replies::reply6(skb),
        ICMP6 => icmp::rd_icmp6(skb, icmp::TO_GUEST),
        _ => NEXT,
    }
}

/// Whether a packet from an address with this bit may be of a flow: it saves all others the look-up
/// of one.
#[inline(always)]
fn may_be_reply(skb: *mut __sk_buff, bit: u32) -> bool {
    may_be_backend(bit) && has_begun_flows(skb)
}

/// Whether a flow has begun on the packet's interface. Executors whose cgroup is attached receive
/// packets of backends and have no flow.
#[inline(always)]
fn has_begun_flows(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context has this field.
    !flows_of(unsafe { (*skb).ifindex }).is_null()
}

/// Whether an address with this bit may be a backend's.
#[inline(always)]
fn may_be_backend(bit: u32) -> bool {
    // SAFETY: a map value stays mapped while a program runs.
    element(&RD_BKND_FILTER, bit >> 6)
        .is_some_and(|word| unsafe { core::ptr::read_volatile(word) } >> (bit & 63) & 1 != 0)
}
