//! `getpeername4` and `getpeername6`: the socket is told the VIP, or the resolver, and the port
//! that it asked for.

use aya_ebpf::programs::SockAddrContext;
use redirector_common::{
    addr::{Ip4Be, Ip6Be},
    origin::Origin,
};

use crate::{ctx::SockAddr, dns_intercept, maps};

#[inline(always)]
pub(crate) fn peername4(ctx: &SockAddrContext) {
    let addr = SockAddr::new(ctx);
    if let Some(origin) = origin_of(&addr, Ip6Be::mapped(addr.ip4())) {
        addr.set_ip4(vip4(origin));
        addr.set_port(origin.vip_port);
    } else {
        dns_intercept::back4(&addr);
    }
}

#[inline(always)]
pub(crate) fn peername6(ctx: &SockAddrContext) {
    let addr = SockAddr::new(ctx);
    if let Some(origin) = origin_of(&addr, addr.ip6()) {
        addr.set_ip6(match maps::pool6() {
            Some(pool) if origin.marks & Origin::MARK_VIP6 != 0 => pool.at(origin.route),
            _ => Ip6Be::mapped(vip4(origin)),
        });
        addr.set_port(origin.vip_port);
    } else {
        dns_intercept::back6(&addr);
    }
}

/// The origin of the actual peer. A socket that has been connected elsewhere since keeps its actual
/// peer.
#[inline(always)]
fn origin_of(addr: &SockAddr, peer: Ip6Be) -> Option<&'static Origin> {
    let origin = maps::origin(addr.sk())?;
    if origin.leads_to(peer, addr.port()) { Some(origin) } else { None }
}

#[inline(always)]
fn vip4(origin: &Origin) -> Ip4Be {
    Ip4Be::from_number(maps::pool4().base.number().wrapping_add(origin.route))
}
