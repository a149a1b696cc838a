//! `connect4` and `connect6`: TCP to the pool gets a backend; everything else is left alone.

use aya_ebpf::{helpers::generated::bpf_set_retval, programs::SockAddrContext};
use aya_log_ebpf::debug;
use redirector_common::{
    addr::{Ip4Be, Ip6Be, PortBe},
    backend::BackendId,
    decide::{self, Choice, Verdict},
    origin::Origin,
};

use crate::{
    ALLOW,
    ctx::SockAddr,
    maps::{self, KernelTables, RD_ORIGINS},
    release,
};

/// The call fails: with the errno that `bpf_set_retval` gave, else with EPERM.
pub(crate) const DENY: i32 = 0;

const ECONNREFUSED: i32 = 111;

#[inline(always)]
pub(crate) fn connect4(ctx: &SockAddrContext) -> i32 {
    let addr = SockAddr::new(ctx);
    let Some(index) = maps::pool4().index(addr.ip4()) else { return ALLOW };
    redirect(ctx, &addr, index, |ip| addr.set_ip4(ip))
}

/// A dual-stack socket (a JVM uses nothing else) connects to `::ffff:VIP`.
#[inline(always)]
pub(crate) fn connect6(ctx: &SockAddrContext) -> i32 {
    let addr = SockAddr::new(ctx);
    let Some(ip) = addr.ip6().as_mapped() else { return ALLOW };
    let Some(index) = maps::pool4().index(ip) else { return ALLOW };
    redirect(ctx, &addr, index, |ip| addr.set_mapped(ip))
}

#[inline(always)]
fn redirect(ctx: &SockAddrContext, addr: &SockAddr, index: u32, rewrite: impl FnOnce(Ip4Be)) -> i32 {
    if !addr.is_tcp() {
        return ALLOW;
    }
    let port = addr.port();
    let previous = maps::origin(addr.sk());
    let last = match &previous {
        Some(origin) => origin.id(),
        None => BackendId::NONE,
    };
    match decide::connect(&KernelTables, index, port, last) {
        Verdict::Redirect(choice) => {
            if let Some(previous) = previous {
                release::settle(previous);
            }
            if !record(ctx, index, port, &choice) {
                return refuse(index);
            }
            log_redirected(ctx, index, port, choice.address, choice.port);
            count_start(index, &choice);
            rewrite(choice.address);
            addr.set_port(choice.port);
            ALLOW
        }
        Verdict::Refuse => {
            log_refused(ctx, index, port);
            refuse(index)
        }
        Verdict::Pass => {
            if let Some(stats) = maps::route_stats(index) {
                maps::add(&mut stats.passed, 1);
            }
            ALLOW
        }
    }
}

/// Remembers where the socket wanted to go. Without that, no hook could tell its peer or its fate, so a failure refuses the connect.
#[inline(always)]
fn record(ctx: &SockAddrContext, index: u32, port: PortBe, choice: &Choice) -> bool {
    // SAFETY: the storage is the socket's own and lives as long as it; the hook runs under the socket's lock.
    let Some(origin) = (unsafe { RD_ORIGINS.get_or_insert_ptr_mut(ctx, None).as_mut() }) else { return false };
    origin.tries = if origin.backend_port.0 == 0 { 0 } else { origin.tries.saturating_add(1) };
    origin.started_ns = maps::now_ns();
    origin.backend = Ip6Be::mapped(choice.address);
    origin.route = index;
    origin.backend_id = choice.id.0;
    origin.vip_port = port;
    origin.backend_port = choice.port;
    origin.phase = Origin::PHASE_CHOSEN;
    origin.marks = 0;
    true
}

#[inline(always)]
fn count_start(index: u32, choice: &Choice) {
    if let Some(stats) = maps::route_stats(index) {
        maps::add(&mut stats.started, 1);
        if choice.desperate {
            maps::add(&mut stats.desperate, 1);
        }
    }
    if let Some(stats) = maps::backend_stats(choice.id) {
        maps::add(&mut stats.started, 1);
    }
}

#[inline(always)]
fn refuse(index: u32) -> i32 {
    if let Some(stats) = maps::route_stats(index) {
        maps::add(&mut stats.denied, 1);
    }
    if maps::has_set_retval() {
        // SAFETY: sets this call's return value only.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    DENY
}

// A message needs stack of its own: in the caller's frame the compiler reuses slots, and without CAP_PERFMON the verifier (6.18) says "attempt to
// corrupt spilled pointer on stack". The levels are known at load; at `info` nothing of the bodies is left.

#[inline(never)]
fn log_redirected(ctx: &SockAddrContext, vip: u32, port: PortBe, backend: Ip4Be, backend_port: PortBe) {
    debug!(ctx, "vip {} port {} goes to {:i} port {}", vip, port.get(), backend.number(), backend_port.get());
}

#[inline(never)]
fn log_refused(ctx: &SockAddrContext, vip: u32, port: PortBe) {
    debug!(ctx, "vip {} port {} is refused", vip, port.get());
}
