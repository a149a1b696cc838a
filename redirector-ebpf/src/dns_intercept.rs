//! DNS interception at sockets, the fallback where no interface carries the DNS of executors
//! (`dns.intercept = "sockets"`): a query to a listed resolver is redirected to the shim's port for
//! that resolver, and the source address of a reply from that port is replaced by the resolver's.
//!
//! Queries are redirected only while the agent is alive. Addresses are always restored, since the
//! agent may have died after a query was redirected. A datagram that passes two hooks is redirected
//! once, since the first hook changes its port from 53.

use aya_ebpf::{helpers::generated::bpf_get_netns_cookie, programs::SockAddrContext};
use redirector_common::{
    addr::{Ip4Be, Ip6Be, PortBe},
    decide::{Reach, is_alive, reach},
    dns::{self, SLOTS, Shim},
};

use crate::{ctx::SockAddr, dns_tables, maps};

/// Redirects a query in an IPv4 hook. Traffic to other ports than 53 costs one comparison.
#[inline(always)]
pub(crate) fn redirect_query4(ctx: &SockAddrContext) {
    let addr = SockAddr::new(ctx);
    if addr.port().0 != dns::PORT.0 {
        return;
    }
    let shim = dns_tables::shim();
    let slot = slot_for_query(ctx, Ip6Be::mapped(addr.ip4()), Ip6Be::mapped(shim.ip4), &shim);
    if slot < SLOTS {
        addr.set_ip4(shim.ip4);
        addr.set_port(shim.port_of_slot(slot));
    }
}

/// Redirects a query to `resolver`, which may be in its mapped form, in an IPv6 hook.
#[inline(always)]
pub(crate) fn redirect_query6(ctx: &SockAddrContext, resolver: Ip6Be) {
    let addr = SockAddr::new(ctx);
    if addr.port().0 != dns::PORT.0 {
        return;
    }
    let shim = dns_tables::shim();
    let shim_address = shim_address6(&shim, resolver);
    let slot = slot_for_query(ctx, resolver, shim_address, &shim);
    if slot < SLOTS {
        addr.set_ip6(shim_address);
        addr.set_port(shim.port_of_slot(slot));
    }
}

/// The shim's address in an IPv6 hook, of the family of `other`.
#[inline(always)]
fn shim_address6(shim: &Shim, other: Ip6Be) -> Ip6Be {
    if other.as_mapped().is_some() { Ip6Be::mapped(shim.ip4) } else { shim.ip6 }
}

/// The slot of `resolver`, whose queries go to `shim_address`; [`SLOTS`] for a query that must be
/// left alone.
#[inline(always)]
fn slot_for_query(ctx: &SockAddrContext, resolver: Ip6Be, shim_address: Ip6Be, shim: &Shim) -> u32 {
    let addr = SockAddr::new(ctx);
    if shim.enabled == 0 || !addr.has_ports() || addr.mark() == dns::MARK {
        return SLOTS;
    }
    let slot = dns_tables::find_slot(resolver);
    if slot >= SLOTS {
        return SLOTS;
    }
    match reach(resolver, shim_address) {
        Reach::Never => return SLOTS,
        Reach::Host if !is_on_host(ctx, shim) => return SLOTS,
        Reach::Host | Reach::Anywhere => {}
    }
    if !is_alive(maps::heartbeat_ns(), maps::now_ns()) {
        dns_tables::count(dns::AGENT_STALE);
        log!(agent_stale(resolver));
        return SLOTS;
    }
    dns_tables::count(slot);
    log!(intercepted(resolver, slot));
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

/// Replaces the peer's address in an IPv4 hook by the resolver's, if the peer is one of the shim's
/// ports.
#[inline(always)]
pub(crate) fn restore_resolver4(addr: &SockAddr) {
    let shim = dns_tables::shim();
    let Ip6Be([_, _, _, resolver]) =
        resolver_of_port(addr.ip4().0 == shim.ip4.0, addr.port(), &shim);
    if resolver != 0 {
        addr.set_ip4(Ip4Be(resolver));
        addr.set_port(dns::PORT);
    }
}

/// As [`restore_resolver4`], in an IPv6 hook.
#[inline(always)]
pub(crate) fn restore_resolver6(addr: &SockAddr) {
    let shim = dns_tables::shim();
    let from = addr.ip6();
    let resolver = resolver_of_port(from == shim_address6(&shim, from), addr.port(), &shim);
    if !resolver.is_unspecified() {
        addr.set_ip6(resolver);
        addr.set_port(dns::PORT);
    }
}

/// The resolver of one of the shim's ports; `::` for another port or if the address is not the
/// shim's.
#[inline(always)]
fn resolver_of_port(is_shim: bool, port: PortBe, shim: &Shim) -> Ip6Be {
    let slot = shim.slot_of_port(port);
    if is_shim && slot < SLOTS { dns_tables::resolver(slot) } else { Ip6Be::default() }
}
