//! The options of a redirected socket: source address, SYN timeout, keepalive. The application's
//! own settings take precedence.

use aya_ebpf::{
    bindings::{bpf_sock_ops, sockaddr},
    helpers::generated::{bpf_bind, bpf_getsockopt, bpf_setsockopt},
    programs::SockAddrContext,
};
use redirector_common::{
    addr::{Ip4Be, Ip6Be},
    origin::Origin,
};

use crate::{maps, opaque};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

// Levels and options (linux/tcp.h, asm-generic/socket.h; the same on x86-64 and arm64).
const SOL_SOCKET: i32 = 1;
const SO_KEEPALIVE: i32 = 9;
const SOL_TCP: i32 = 6;
const TCP_KEEPIDLE: i32 = 4;
const TCP_KEEPINTVL: i32 = 5;
const TCP_KEEPCNT: i32 = 6;
const TCP_SYNCNT: i32 = 7;

/// The kernel's default of `net.ipv4.tcp_syn_retries`.
const DEFAULT_SYN_RETRIES: i32 = 6;

// Addresses are written in whole words: without CAP_PERFMON a store of half a word is refused,
// "attempt to corrupt spilled pointer on stack" (5.10 to 6.12). The first word holds the family,
// the port (0: the kernel's choice) and, for IPv4, the address.

const SIZE_OF_SOCKADDR_IN: i32 = 16;
const SIZE_OF_SOCKADDR_IN6: i32 = 28;

/// Binds an IPv4 socket to an address and leaves the port to the kernel. False if this network
/// namespace lacks the address.
#[inline(always)]
pub(crate) fn bind4(ctx: &SockAddrContext, source: Ip4Be) -> bool {
    let mut addr = [pair(AF_INET, source.0), 0];
    // SAFETY: the address is whole, and outlives the call.
    unsafe { bpf_bind(ctx.sock_addr, (&raw mut addr).cast::<sockaddr>(), SIZE_OF_SOCKADDR_IN) == 0 }
}

/// As [`bind4`], for an IPv6 socket; the address may be an IPv4-mapped one.
#[inline(always)]
pub(crate) fn bind6(ctx: &SockAddrContext, source: Ip6Be) -> bool {
    let [a, b, c, d] = source.0;
    let mut addr = [pair(AF_INET6, 0), pair(a, b), pair(c, d), 0];
    // SAFETY: as above.
    unsafe {
        bpf_bind(ctx.sock_addr, (&raw mut addr).cast::<sockaddr>(), SIZE_OF_SOCKADDR_IN6) == 0
    }
}

/// Undoes [`bind4`].
#[inline(always)]
pub(crate) fn unbind4(ctx: &SockAddrContext) -> bool {
    bind4(ctx, Ip4Be(0))
}

/// Undoes [`bind6`]. The zeros are opaque: the compiler would call `memset`, whose loop verifiers
/// refuse.
#[inline(always)]
pub(crate) fn unbind6(ctx: &SockAddrContext) -> bool {
    let zero = opaque::number(0) as u32;
    bind6(ctx, Ip6Be([zero; 4]))
}

/// Two halves of a word in memory order: programs are built for little-endian machines.
#[inline(always)]
const fn pair(first: u32, second: u32) -> u64 {
    first as u64 | (second as u64) << 32
}

/// Restores the number of SYN retransmissions that the socket had before [`shorten_syn_timeout`].
#[inline(always)]
pub(crate) fn restore_syn_retries(ops: *mut bpf_sock_ops, origin: &mut Origin) {
    if origin.flags & Origin::FLAG_SYN_RETRIES_SET != 0 {
        origin.flags &= !Origin::FLAG_SYN_RETRIES_SET;
        let before = i32::from(origin.syn_retries);
        let before = if before == 0 { DEFAULT_SYN_RETRIES } else { before };
        set_option(ops.cast(), SOL_TCP, TCP_SYNCNT, before);
    }
}

/// Limits the retransmissions of the SYN if the route has another backend, unless the application
/// has set fewer (before 6.0 the kernel does not show the number). Called at the first
/// retransmission, so that it costs connects that are answered nothing.
#[inline(always)]
pub(crate) fn shorten_syn_timeout(ops: *mut bpf_sock_ops, origin: &mut Origin) {
    let control = maps::control();
    if origin.flags & (Origin::FLAG_SHORT_TIMEOUT | Origin::FLAG_SYN_RETRIES_SET)
        != Origin::FLAG_SHORT_TIMEOUT
        || control.syn_timeout == 0
    {
        return;
    }
    let limit = i32::from(control.syn_retries);
    let before = option(ops, SOL_TCP, TCP_SYNCNT).unwrap_or(0);
    if before == 0 || before > limit {
        origin.flags |= Origin::FLAG_SYN_RETRIES_SET;
        origin.syn_retries = before as u8;
        set_option(ops.cast(), SOL_TCP, TCP_SYNCNT, limit);
    }
}

/// The timeout of the first SYN in jiffies, if it is not the default.
#[inline(always)]
pub(crate) fn syn_timeout(origin: &Origin) -> Option<u32> {
    if origin.phase != Origin::PHASE_CONNECTING || origin.flags & Origin::FLAG_SHORT_TIMEOUT == 0 {
        return None;
    }
    match maps::control().syn_timeout {
        0 => None,
        jiffies => Some(u32::from(jiffies)),
    }
}

/// Keeps an idle connection alive through a load balancer that drops it after `idle_seconds`: the
/// first probe comes at two thirds of that, then four more before the end. Times that the
/// application has set are only lowered (before 6.0 the kernel does not show them).
#[inline(always)]
pub(crate) fn enable_keepalive(ops: *mut bpf_sock_ops, idle_seconds: u16) {
    let idle = i32::from(idle_seconds);
    let interval = idle / 15;
    lower_option(ops, TCP_KEEPIDLE, idle * 2 / 3);
    lower_option(ops, TCP_KEEPINTVL, if interval == 0 { 1 } else { interval });
    if option(ops, SOL_SOCKET, SO_KEEPALIVE).is_none_or(|on| on == 0) {
        lower_option(ops, TCP_KEEPCNT, 5);
        set_option(ops.cast(), SOL_SOCKET, SO_KEEPALIVE, 1);
    }
}

/// Sets a TCP option unless it has a lower value, or the same.
#[inline(always)]
fn lower_option(ops: *mut bpf_sock_ops, name: i32, limit: i32) {
    if option(ops, SOL_TCP, name).is_none_or(|value| value > limit) {
        set_option(ops.cast(), SOL_TCP, name, limit);
    }
}

/// A socket option, if the kernel shows it.
#[inline(always)]
fn option(ops: *mut bpf_sock_ops, level: i32, name: i32) -> Option<i32> {
    let mut value: i32 = 0;
    let size = size_of::<i32>() as i32;
    // SAFETY: the value is whole, and outlives the call.
    let got = unsafe { bpf_getsockopt(ops.cast(), level, name, (&raw mut value).cast(), size) };
    if got == 0 { Some(value) } else { None }
}

/// Sets a socket option. A failure is ignored: the connect works without it.
#[inline(always)]
fn set_option(ctx: *mut core::ffi::c_void, level: i32, option: i32, value: i32) {
    let mut value = value;
    // SAFETY: the context is the hook's own; the value is whole, and outlives the call.
    unsafe { bpf_setsockopt(ctx, level, option, (&raw mut value).cast(), size_of::<i32>() as i32) };
}
