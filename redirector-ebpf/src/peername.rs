//! `getpeername4` and `getpeername6`: the socket is told the VIP and the port that it asked for.

use aya_ebpf::programs::SockAddrContext;
use redirector_common::addr::{Ip4Be, Ip6Be, PortBe};

use crate::{ctx::SockAddr, maps};

#[inline(always)]
pub(crate) fn peername4(ctx: &SockAddrContext) {
    let addr = SockAddr::new(ctx);
    if let Some((vip, port)) = asked_for(&addr, Ip6Be::mapped(addr.ip4())) {
        addr.set_ip4(vip);
        addr.set_port(port);
    }
}

#[inline(always)]
pub(crate) fn peername6(ctx: &SockAddrContext) {
    let addr = SockAddr::new(ctx);
    if let Some((vip, port)) = asked_for(&addr, addr.ip6()) {
        addr.set_mapped(vip);
        addr.set_port(port);
    }
}

/// The VIP and port behind the actual peer. A socket that has been connected elsewhere since keeps its actual peer.
#[inline(always)]
fn asked_for(addr: &SockAddr, peer: Ip6Be) -> Option<(Ip4Be, PortBe)> {
    let origin = maps::origin(addr.sk())?;
    if !origin.leads_to(peer, addr.port()) {
        return None;
    }
    let pool = maps::pool4();
    Some((Ip4Be::from_number(pool.base.number().wrapping_add(origin.route)), origin.vip_port))
}
