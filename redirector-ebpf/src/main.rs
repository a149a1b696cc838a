//! The programs. Each hook is one attribute, one call and one explicit verdict; decisions are made
//! in `redirector_common::decide`.
//!
//! | program | does |
//! |---|---|
//! | `rd_connect4`, `rd_connect6` | TCP to the pool: select a backend, record the origin, rewrite |
//! | the same | port 53: redirect to the shim's port for the resolver; else: leave alone |
//! | `rd_sendmsg4`, `rd_sendmsg6` | port 53: the same for datagrams of unconnected sockets |
//! | `rd_recvmsg4`, `rd_recvmsg6` | return the resolver as the datagram's source |
//! | `rd_peername4`, `rd_peername6` | return the peer that the client asked for: VIP or resolver |
//! | `rd_sockops` | follow each redirected connection: sent, retransmitted, established, closed |
//! | `rd_release` | record sockets that are closed before they are connected |
//! | `rd_ingress` | packets from a guest: answer names, redirect TCP to the pool |
//! | `rd_egress` | packets to a guest: undo the redirection |
//! | `rd_host_egress` | packets of the host's own sockets: answer names of attached cgroups |
#![no_std]
#![no_main]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "the atomic addition in `maps::add`"),
    feature(asm_experimental_arch, core_intrinsics)
)]

/// Calls a function of `debug_log` in the debug build; the ordinary build contains no trace of it.
macro_rules! log {
    ($function:ident($($argument:expr),*)) => {
        #[cfg(feature = "debug-log")]
        crate::debug_log::$function($($argument),*)
    };
}

mod connect;
mod ctx;
#[cfg(feature = "debug-log")]
mod debug_log;
mod dns_intercept;
mod dns_tables;
mod events;
mod health;
mod maps;
mod opaque;
mod outcome;
mod packet;
mod peername;
mod pools;
mod sendmsg;
mod sock_release;
mod sockops;
mod sockopts;
mod tables;
mod verdict;

use aya_ebpf::{
    macros::{cgroup_sock, cgroup_sock_addr, classifier, sock_ops},
    programs::{SockAddrContext, SockContext, SockOpsContext, TcContext},
};

use crate::{
    packet::{headers::Access, hooks},
    verdict::ALLOW,
};

/// The kernel offers some helpers to GPL-compatible programs only.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cgroup_sock_addr(connect4)]
fn rd_connect4(ctx: SockAddrContext) -> i32 {
    connect::connect4(&ctx)
}

#[cgroup_sock_addr(connect6)]
fn rd_connect6(ctx: SockAddrContext) -> i32 {
    connect::connect6(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
fn rd_sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg::sendmsg4(&ctx);
    ALLOW
}

#[cgroup_sock_addr(sendmsg6)]
fn rd_sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg::sendmsg6(&ctx);
    ALLOW
}

#[cgroup_sock_addr(recvmsg4)]
fn rd_recvmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg::recvmsg4(&ctx);
    ALLOW
}

#[cgroup_sock_addr(recvmsg6)]
fn rd_recvmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg::recvmsg6(&ctx);
    ALLOW
}

#[cgroup_sock_addr(getpeername4)]
fn rd_peername4(ctx: SockAddrContext) -> i32 {
    peername::peername4(&ctx);
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
fn rd_peername6(ctx: SockAddrContext) -> i32 {
    peername::peername6(&ctx);
    ALLOW
}

/// Always returns 1: with 0 the kernel drops the reply of every `sock_ops` program on the socket,
/// those of foreign programs included.
#[sock_ops]
fn rd_sockops(ctx: SockOpsContext) -> u32 {
    sockops::on_event(&ctx);
    1
}

#[cgroup_sock(sock_release)]
fn rd_release(ctx: SockContext) -> i32 {
    sock_release::release(&ctx);
    ALLOW
}

#[classifier]
fn rd_ingress(ctx: TcContext) -> i32 {
    hooks::ingress(&ctx, Access::Direct)
}

#[classifier]
fn rd_egress(ctx: TcContext) -> i32 {
    hooks::egress(&ctx, Access::Direct)
}

#[classifier]
fn rd_host_egress(ctx: TcContext) -> i32 {
    hooks::host_egress(&ctx, Access::Direct)
}

// The loader uses these where the kernel refuses direct access; see `Access`.

#[classifier]
fn rc_ingress(ctx: TcContext) -> i32 {
    hooks::ingress(&ctx, Access::Copy)
}

#[classifier]
fn rc_egress(ctx: TcContext) -> i32 {
    hooks::egress(&ctx, Access::Copy)
}

#[classifier]
fn rc_host_egress(ctx: TcContext) -> i32 {
    hooks::host_egress(&ctx, Access::Copy)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // The verifier rejects any program that could get here.
    loop {}
}
