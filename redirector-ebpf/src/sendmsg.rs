//! `sendmsg4`, `sendmsg6`, `recvmsg4`, `recvmsg6`: datagrams of sockets that are not connected, and
//! where each one that is received came from.
//!
//! A dual-stack socket that sends to `::ffff:a.b.c.d` is seen by `sendmsg4`, and by `recvmsg6` when
//! it receives. One that is connected is seen by `connect6` and again by `sendmsg4`, with the
//! address that `connect6` left: it has another port than 53 by then, so that it passes.

use aya_ebpf::programs::SockAddrContext;

use crate::{ctx::SockAddr, dns_intercept};

#[inline(always)]
pub(crate) fn sendmsg4(ctx: &SockAddrContext) {
    dns_intercept::forward4(ctx);
}

#[inline(always)]
pub(crate) fn sendmsg6(ctx: &SockAddrContext) {
    dns_intercept::forward6(ctx, SockAddr::new(ctx).ip6());
}

#[inline(always)]
pub(crate) fn recvmsg4(ctx: &SockAddrContext) {
    dns_intercept::back4(&SockAddr::new(ctx));
}

#[inline(always)]
pub(crate) fn recvmsg6(ctx: &SockAddrContext) {
    dns_intercept::back6(&SockAddr::new(ctx));
}
