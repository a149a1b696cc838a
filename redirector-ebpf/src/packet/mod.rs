//! The packet datapath, at the traffic-control hook of interfaces.
//!
//! | file | is |
//! |---|---|
//! | `headers` | reading the headers of a frame |
//! | `skb` | reading and writing octets of a frame by helpers |
//! | `checksum` | checksums of TCP and UDP |
//! | `names` | answering queries for mapped names |
//! | `flows` | redirecting TCP of guests |
//! | `maps` | the tables |

mod checksum;
mod flows;
mod headers;
mod maps;
mod names;
mod skb;

use aya_ebpf::programs::TcContext;

use self::{
    headers::{IPV4, IPV6, Ipv4, Ipv6},
    names::{FROM_GUEST, FROM_HOST, OVER_IPV4, OVER_IPV6},
};

/// The verdict that leaves a packet to the next program: TCX_NEXT and TC_ACT_UNSPEC.
pub(crate) const NEXT: i32 = -1;
/// The verdict that drops a packet: TC_ACT_SHOT.
pub(crate) const DROP: i32 = 2;

/// How headers are read.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    /// From the packet's memory, which costs 10 ns less. Without CAP_PERFMON older kernels refuse
    /// it: "R3 pointer comparison prohibited" (5.10).
    Direct,
    /// By a helper that copies them.
    Copy,
}

/// A packet from a guest.
#[inline(always)]
pub(crate) fn ingress(ctx: &TcContext, access: Access) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context has this field.
    let protocol = unsafe { (*skb).protocol };
    if protocol == IPV4 {
        let Some(ip) = Ipv4::of(skb, access) else { return NEXT };
        if ip.is_query() {
            return names::rd_query(skb, OVER_IPV4 | FROM_GUEST, ip.payload_length());
        }
        return flows::ingress4(skb, ip);
    }
    if protocol == IPV6 {
        let Some(ip) = Ipv6::of(skb, access) else { return NEXT };
        if ip.is_query() {
            return names::rd_query(skb, OVER_IPV6 | FROM_GUEST, ip.payload_length());
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
            return names::rd_query(skb, OVER_IPV4 | FROM_HOST, ip.payload_length());
        }
        return flows::egress4(skb, ip);
    }
    if protocol == IPV6 {
        let Some(ip) = Ipv6::of(skb, access) else { return NEXT };
        if ip.is_query() {
            return names::rd_query(skb, OVER_IPV6 | FROM_HOST, ip.payload_length());
        }
        return flows::egress6(skb, ip);
    }
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
            Some(ip) if ip.is_query() => {
                names::rd_query(skb, OVER_IPV4 | FROM_HOST, ip.payload_length())
            }
            _ => NEXT,
        };
    }
    if protocol == IPV6 {
        return match Ipv6::of(skb, access) {
            Some(ip) if ip.is_query() => {
                names::rd_query(skb, OVER_IPV6 | FROM_HOST, ip.payload_length())
            }
            _ => NEXT,
        };
    }
    NEXT
}
