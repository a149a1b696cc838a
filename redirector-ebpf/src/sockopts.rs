//! What is set on a redirected socket: the address it connects from, how long its SYN waits,
//! keepalive. The application's own settings stand.

use aya_ebpf::{
    bindings::{bpf_sock_ops, sockaddr},
    helpers::generated::{bpf_bind, bpf_getsockopt, bpf_setsockopt},
    programs::SockAddrContext,
};
use redirector_common::{
    addr::{Ip4Be, Ip6Be},
    origin::Origin,
};

use crate::maps;

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

/// `net.ipv4.tcp_syn_retries` as the kernel has it by default.
const DEFAULT_SYN_RETRIES: i32 = 6;

// Addresses are made of whole words: half of a word written onto the other half is "attempt to
// corrupt spilled pointer on stack" without CAP_PERFMON (5.10 to 6.12). In the first word stand the
// family, the port (0: left open) and, for IPv4, the address.

const SIZE_OF_SOCKADDR_IN: i32 = 16;
const SIZE_OF_SOCKADDR_IN6: i32 = 28;

/// Binds an IPv4 socket to an address, with the port left open. False when this network namespace
/// lacks it.
#[inline(always)]
pub(crate) fn bind4(ctx: &SockAddrContext, source: Ip4Be) -> bool {
    let mut addr = [pair(AF_INET, source.0), 0];
    // SAFETY: the address is whole, and outlives the call.
    unsafe { bpf_bind(ctx.sock_addr, (&raw mut addr).cast::<sockaddr>(), SIZE_OF_SOCKADDR_IN) == 0 }
}

/// The same for an IPv6 socket; the address may be a mapped one.
#[inline(always)]
pub(crate) fn bind6(ctx: &SockAddrContext, source: Ip6Be) -> bool {
    let [a, b, c, d] = source.0;
    let mut addr = [pair(AF_INET6, 0), pair(a, b), pair(c, d), 0];
    // SAFETY: as above.
    unsafe {
        bpf_bind(ctx.sock_addr, (&raw mut addr).cast::<sockaddr>(), SIZE_OF_SOCKADDR_IN6) == 0
    }
}

/// Two halves of a word in the order in which they stand in memory: programs are built for
/// little-endian machines.
#[inline(always)]
const fn pair(first: u32, second: u32) -> u64 {
    first as u64 | (second as u64) << 32
}

/// Gives a socket the kernel's own number of SYN retransmissions again, when an earlier connect of
/// it had fewer and this one is in no hurry.
#[inline(always)]
pub(crate) fn take_time(ctx: &SockAddrContext, origin: &mut Origin) {
    if origin.marks & (Origin::MARK_HURRIED | Origin::MARK_LIMITED) == Origin::MARK_LIMITED {
        origin.marks &= !Origin::MARK_LIMITED;
        set(ctx.sock_addr.cast(), SOL_TCP, TCP_SYNCNT, DEFAULT_SYN_RETRIES);
    }
}

/// Gives the SYN fewer retransmissions while the route has another backend to offer. At the first
/// one is early enough, and costs a connect that is answered nothing.
#[inline(always)]
pub(crate) fn hurry(ops: *mut bpf_sock_ops, origin: &mut Origin) {
    let control = maps::control();
    if origin.marks & (Origin::MARK_HURRIED | Origin::MARK_LIMITED) == Origin::MARK_HURRIED
        && control.syn_timeout != 0
    {
        origin.marks |= Origin::MARK_LIMITED;
        set(ops.cast(), SOL_TCP, TCP_SYNCNT, i32::from(control.syn_retries));
    }
}

/// The time-out of the first SYN in jiffies, where it is ours to say.
#[inline(always)]
pub(crate) fn syn_timeout(origin: &Origin) -> Option<u32> {
    if origin.phase != Origin::PHASE_CONNECTING || origin.marks & Origin::MARK_HURRIED == 0 {
        return None;
    }
    match maps::control().syn_timeout {
        0 => None,
        jiffies => Some(u32::from(jiffies)),
    }
}

/// Keeps an idle connection alive through a load balancer that forgets it after `idle_seconds`: the
/// first probe at two thirds of that, then four more before the end. An application that asked for
/// keepalive itself is left alone (before 6.0 the kernel does not tell).
#[inline(always)]
pub(crate) fn keep_alive(ops: *mut bpf_sock_ops, idle_seconds: u16) {
    let mut on: i32 = 0;
    // SAFETY: the value is whole, and outlives the call.
    let got = unsafe {
        bpf_getsockopt(
            ops.cast(),
            SOL_SOCKET,
            SO_KEEPALIVE,
            (&raw mut on).cast(),
            size_of::<i32>() as i32,
        )
    };
    if got == 0 && on != 0 {
        return;
    }
    let idle = i32::from(idle_seconds);
    let interval = idle / 15;
    set(ops.cast(), SOL_TCP, TCP_KEEPIDLE, idle * 2 / 3);
    set(ops.cast(), SOL_TCP, TCP_KEEPINTVL, if interval == 0 { 1 } else { interval });
    set(ops.cast(), SOL_TCP, TCP_KEEPCNT, 5);
    set(ops.cast(), SOL_SOCKET, SO_KEEPALIVE, 1);
}

/// A setting that the kernel refuses costs nothing but itself.
#[inline(always)]
fn set(ctx: *mut core::ffi::c_void, level: i32, option: i32, value: i32) {
    let mut value = value;
    // SAFETY: the context is the hook's own; the value is whole, and outlives the call.
    unsafe { bpf_setsockopt(ctx, level, option, (&raw mut value).cast(), size_of::<i32>() as i32) };
}
