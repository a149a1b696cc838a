//! `sendmsg4`, `sendmsg6`, `recvmsg4` and `recvmsg6`: the destinations and sources of datagrams of
//! unconnected sockets.
//!
//! A dual-stack socket that sends to `::ffff:a.b.c.d` runs `sendmsg4`, but `recvmsg6` when it
//! receives. A connected one runs `connect6`, then `sendmsg4` with the rewritten address, which has
//! another port than 53 and passes.

use aya_ebpf::programs::SockAddrContext;

use crate::{ctx::SockAddr, dns_intercept};

#[inline(always)]
pub(crate) fn sendmsg4(ctx: &SockAddrContext) {
    dns_intercept::redirect_query4(ctx);
}

#[inline(always)]
pub(crate) fn sendmsg6(ctx: &SockAddrContext) {
    dns_intercept::redirect_query6(ctx, SockAddr::new(ctx).ip6());
}

#[inline(always)]
pub(crate) fn recvmsg4(ctx: &SockAddrContext) {
    dns_intercept::restore_resolver4(&SockAddr::new(ctx));
}

#[inline(always)]
pub(crate) fn recvmsg6(ctx: &SockAddrContext) {
    dns_intercept::restore_resolver6(&SockAddr::new(ctx));
}
