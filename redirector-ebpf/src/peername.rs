//! `getpeername4` and `getpeername6`: the socket gets the peer that it asked for, a VIP or a
//! resolver.

use aya_ebpf::programs::SockAddrContext;
use redirector_common::{
    addr::{Ip4Be, Ip6Be},
    origin::Origin,
};

use crate::{ctx::SockAddr, dns_intercept, maps, pools};

#[inline(always)]
pub(crate) fn peername4(ctx: &SockAddrContext) {
    let addr = SockAddr::new(ctx);
    if let Some(origin) = origin_of(&addr, Ip6Be::mapped(addr.ip4())) {
        addr.set_ip4(vip4(origin));
        addr.set_port(origin.vip_port);
    } else {
        dns_intercept::restore_resolver4(&addr);
    }
}

#[inline(always)]
pub(crate) fn peername6(ctx: &SockAddrContext) {
    let addr = SockAddr::new(ctx);
    if let Some(origin) = origin_of(&addr, addr.ip6()) {
        addr.set_ip6(match pools::pool6() {
            Some(pool) if origin.flags & Origin::FLAG_VIP6 != 0 => pool.at(origin.route),
            _ => Ip6Be::mapped(vip4(origin)),
        });
        addr.set_port(origin.vip_port);
    } else {
        dns_intercept::restore_resolver6(&addr);
    }
}

/// The origin that led to the actual `peer`; none if the socket has been connected elsewhere since.
#[inline(always)]
fn origin_of(addr: &SockAddr, peer: Ip6Be) -> Option<&'static Origin> {
    let origin = maps::origin(addr.sk())?;
    if origin.is_peer(peer, addr.port()) { Some(origin) } else { None }
}

#[inline(always)]
fn vip4(origin: &Origin) -> Ip4Be {
    Ip4Be::from_bits(pools::pool4().base.to_bits().wrapping_add(origin.route))
}
