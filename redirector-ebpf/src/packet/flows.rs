//! TCP of guests and ICMP errors about it.

use aya_ebpf::bindings::__sk_buff;

use super::headers::{Ipv4, Ipv6};
use crate::verdict::NEXT;

/// An IPv4 packet from a guest that is no query.
#[inline(always)]
pub(crate) fn ingress4(_skb: *mut __sk_buff, _ip: Ipv4) -> i32 {
    NEXT
}

/// An IPv6 packet from a guest that is no query.
#[inline(always)]
pub(crate) fn ingress6(_skb: *mut __sk_buff, _ip: Ipv6) -> i32 {
    NEXT
}

/// An IPv4 packet to a guest that is no query.
#[inline(always)]
pub(crate) fn egress4(_skb: *mut __sk_buff, _ip: Ipv4) -> i32 {
    NEXT
}

/// An IPv6 packet to a guest that is no query.
#[inline(always)]
pub(crate) fn egress6(_skb: *mut __sk_buff, _ip: Ipv6) -> i32 {
    NEXT
}
