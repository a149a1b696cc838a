//! DNS interception: a query to a resolver goes to the shim's port for that resolver, and what
//! comes from there is told to come from the resolver.
//!
//! Forward only while the agent lives; back always, since what was translated must be told back
//! whatever became of the agent. A datagram that two hooks see is translated once: what the first
//! one leaves has another port than 53.

use aya_ebpf::{helpers::generated::bpf_get_netns_cookie, programs::SockAddrContext};
use redirector_common::{
    addr::{Ip4Be, Ip6Be, PortBe},
    decide::{Claims, Reach, is_alive, reach},
    dns::{self, SLOTS, Shim},
};

use crate::{ctx::SockAddr, dns_tables, maps};

/// A query that an IPv4 hook sees. Everything that is not for port 53 costs one comparison.
#[inline(always)]
pub(crate) fn forward4(ctx: &SockAddrContext) {
    let addr = SockAddr::new(ctx);
    if addr.port().0 != dns::PORT.0 {
        return;
    }
    let shim = dns_tables::shim();
    let slot = slot_for(ctx, Ip6Be::mapped(addr.ip4()), Ip6Be::mapped(shim.ip4), &shim);
    if slot < SLOTS {
        addr.set_ip4(shim.ip4);
        addr.set_port(shim.port_of(slot));
    }
}

/// A query to `asked` that an IPv6 hook sees; the resolver may be in its mapped form.
#[inline(always)]
pub(crate) fn forward6(ctx: &SockAddrContext, asked: Ip6Be) {
    let addr = SockAddr::new(ctx);
    if addr.port().0 != dns::PORT.0 {
        return;
    }
    let shim = dns_tables::shim();
    let own = own6(&shim, asked);
    let slot = slot_for(ctx, asked, own, &shim);
    if slot < SLOTS {
        addr.set_ip6(own);
        addr.set_port(shim.port_of(slot));
    }
}

/// The shim as an IPv6 hook meets it: of the family of `other`.
#[inline(always)]
fn own6(shim: &Shim, other: Ip6Be) -> Ip6Be {
    if other.as_mapped().is_some() { Ip6Be::mapped(shim.ip4) } else { shim.ip6 }
}

/// The slot of the resolver `asked`, whose queries go to `own`; [`SLOTS`] for a query that is to be
/// left alone.
#[inline(always)]
fn slot_for(ctx: &SockAddrContext, asked: Ip6Be, own: Ip6Be, shim: &Shim) -> u32 {
    let addr = SockAddr::new(ctx);
    if shim.mode == Shim::OFF || !addr.has_ports() || addr.mark() == dns::MARK {
        return SLOTS;
    }
    match reach(asked, own) {
        Reach::Never => return SLOTS,
        Reach::Host if !is_on_host(ctx, shim) => return SLOTS,
        Reach::Host | Reach::Anywhere => {}
    }
    if !is_alive(maps::heartbeat_ns(), maps::now_ns()) {
        dns_tables::count(dns::STALE);
        return SLOTS;
    }
    let slot = dns_tables::slot_of(
        asked,
        if shim.mode == Shim::ALL { Claims::Free } else { Claims::Never },
    );
    // The counter of the slot; or, since it follows them, the one of what found none.
    if slot < SLOTS || shim.mode == Shim::ALL {
        dns_tables::count(slot);
    }
    slot
}

/// Whether the socket is in the host's network namespace.
#[inline(always)]
fn is_on_host(ctx: &SockAddrContext, shim: &Shim) -> bool {
    // SAFETY: null stands for the initial namespace; the context is the hook's own.
    unsafe {
        let host = if shim.host_netns == 0 {
            bpf_get_netns_cookie(core::ptr::null_mut())
        } else {
            shim.host_netns
        };
        bpf_get_netns_cookie(ctx.sock_addr.cast()) == host
    }
}

/// What an IPv4 hook tells of the other side: the resolver, if it is the shim's port for one.
#[inline(always)]
pub(crate) fn back4(addr: &SockAddr) {
    let shim = dns_tables::shim();
    let Ip6Be([_, _, _, resolver]) = resolver(addr.ip4().0 == shim.ip4.0, addr.port(), &shim);
    if resolver != 0 {
        addr.set_ip4(Ip4Be(resolver));
        addr.set_port(dns::PORT);
    }
}

/// The same in an IPv6 hook.
#[inline(always)]
pub(crate) fn back6(addr: &SockAddr) {
    let shim = dns_tables::shim();
    let from = addr.ip6();
    let resolver = resolver(from == own6(&shim, from), addr.port(), &shim);
    if !resolver.is_unspecified() {
        addr.set_ip6(resolver);
        addr.set_port(dns::PORT);
    }
}

/// The resolver that one of the shim's ports stands for; `::` for no such port, or when the address
/// is not the shim's.
#[inline(always)]
fn resolver(is_shim: bool, port: PortBe, shim: &Shim) -> Ip6Be {
    let slot = shim.slot_at(port);
    if is_shim && slot < SLOTS { dns_tables::resolver(slot) } else { Ip6Be::default() }
}
