//! What passes an interface: queries to `names`, other packets of guests to `flows`.

use aya_ebpf::programs::TcContext;

use super::{
    flows,
    headers::{Access, IPV4, IPV6, Ipv4, Ipv6},
    maps::RD_TAIL_CALLS,
    names::{
        origin::{FROM_GUEST, FROM_HOST, OVER_IPV4, OVER_IPV6},
        query::rd_query,
    },
};
use crate::verdict::NEXT;

/// A packet from a guest.
#[inline(always)]
pub(crate) fn ingress(ctx: &TcContext, access: Access) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context has this field.
    let protocol = unsafe { (*skb).protocol };
    if protocol == IPV4 {
        let Some(ip) = Ipv4::of(skb, access) else { return NEXT };
        if ip.is_query() {
            return rd_query(skb, OVER_IPV4 | FROM_GUEST, ip.payload_length());
        }
        return flows::ingress4(skb, ip);
    }
    if protocol == IPV6 {
        let Some(ip) = Ipv6::of(skb, access) else { return NEXT };
        if ip.is_query() {
            return rd_query(skb, OVER_IPV6 | FROM_GUEST, ip.payload_length());
        }
        return flows::ingress6(skb, ip);
    }
    NEXT
}

/// A packet to a guest. A query to it is of a socket of the host, or forwarded.
#[inline(always)]
pub(crate) fn egress(ctx: &TcContext, access: Access) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: as above.
    let protocol = unsafe { (*skb).protocol };
    if protocol == IPV4 {
        let Some(ip) = Ipv4::of(skb, access) else { return NEXT };
        if ip.is_query() {
            return continue_at_host(ctx);
        }
        return flows::egress4(skb, ip);
    }
    if protocol == IPV6 {
        let Some(ip) = Ipv6::of(skb, access) else { return NEXT };
        if ip.is_query() {
            return continue_at_host(ctx);
        }
        return flows::egress6(skb, ip);
    }
    NEXT
}

/// Continues with [`host_egress`]. A program of its own: beside the flows, the verifier took up to
/// fifty times as many instructions for the names (194,732 in all on 6.18, 490,400 on 6.12).
#[inline(always)]
fn continue_at_host(ctx: &TcContext) -> i32 {
    // SAFETY: the array has programs of this type only. It returns if there is none.
    unsafe { RD_TAIL_CALLS.tail_call(ctx, 0) };
    NEXT
}

/// A packet that leaves through an interface of the host.
#[inline(always)]
pub(crate) fn host_egress(ctx: &TcContext, access: Access) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: as above.
    let protocol = unsafe { (*skb).protocol };
    if protocol == IPV4 {
        return match Ipv4::of(skb, access) {
            Some(ip) if ip.is_query() => rd_query(skb, OVER_IPV4 | FROM_HOST, ip.payload_length()),
            _ => NEXT,
        };
    }
    if protocol == IPV6 {
        return match Ipv6::of(skb, access) {
            Some(ip) if ip.is_query() => rd_query(skb, OVER_IPV6 | FROM_HOST, ip.payload_length()),
            _ => NEXT,
        };
    }
    NEXT
}
