//! `connect4` and `connect6`: TCP to the pool gets a backend; everything else is left alone.

use aya_ebpf::{helpers::generated::bpf_set_retval, programs::SockAddrContext};
use aya_log_ebpf::debug;
use redirector_common::{
    addr::{Ip4Be, Ip6Be, PortBe},
    backend::BackendId,
    decide::{self, Choice, Client, Families, Verdict},
    origin::Origin,
};

use crate::{
    ALLOW,
    ctx::SockAddr,
    maps::{self, KernelTables, RD_ORIGINS},
    options, release,
};

/// The call fails: with the errno that `bpf_set_retval` gave, else with EPERM.
pub(crate) const DENY: i32 = 0;

const ECONNREFUSED: i32 = 111;

/// What the two families' hooks do differently.
struct Hook<R, B> {
    families: Families,
    /// The client asked for an IPv6 VIP.
    vip6: bool,
    rewrite: R,
    /// Binds the socket, unless the application has.
    bind: B,
}

#[inline(always)]
pub(crate) fn connect4(ctx: &SockAddrContext) -> i32 {
    let addr = SockAddr::new(ctx);
    let Some(index) = maps::pool4().index(addr.ip4()) else { return ALLOW };
    let rewrite = |to: Ip6Be| addr.set_ip4(Ip4Be(to.0[3]));
    let bind = |source: Ip6Be| addr.is_bound4() || options::bind4(ctx, Ip4Be(source.0[3]));
    redirect(ctx, &addr, index, Hook { families: Families::ONLY4, vip6: false, rewrite, bind })
}

/// An IPv6 VIP, or the mapped form of an IPv4 one (a JVM's sockets connect to nothing else).
///
/// A socket for IPv6 only that gets an IPv4 backend is refused by the kernel itself (ENETUNREACH), which no hook can tell beforehand.
#[inline(always)]
pub(crate) fn connect6(ctx: &SockAddrContext) -> i32 {
    let addr = SockAddr::new(ctx);
    let asked = addr.ip6();
    let (index, vip6) = match asked.as_mapped() {
        Some(ip) => (maps::pool4().index(ip), false),
        None => (maps::pool6().and_then(|pool| pool.index(asked)), true),
    };
    let Some(index) = index else { return ALLOW };
    let (has_address, has_port) = addr.is_bound6();
    // An address that the application has bound decides the family.
    let families = Families { six_first: vip6, both: !has_address };
    let bind = |source: Ip6Be| has_address || has_port || options::bind6(ctx, source);
    redirect(ctx, &addr, index, Hook { families, vip6, rewrite: |to| addr.set_ip6(to), bind })
}

#[inline(always)]
fn redirect(ctx: &SockAddrContext, addr: &SockAddr, index: u32, hook: Hook<impl FnOnce(Ip6Be), impl FnOnce(Ip6Be) -> bool>) -> i32 {
    if !addr.is_tcp() {
        return ALLOW;
    }
    let port = addr.port();
    let previous = maps::origin(addr.sk());
    let last = match &previous {
        Some(origin) => origin.id(),
        None => BackendId::NONE,
    };
    match decide::connect(&KernelTables, index, Client { port, families: hook.families, last }) {
        Verdict::Redirect(choice) => {
            if let Some(previous) = previous {
                release::settle(previous);
            }
            let Some(origin) = record(ctx, index, port, &choice) else { return refuse(index) };
            if hook.vip6 {
                origin.marks |= Origin::MARK_VIP6;
            }
            match choice.address.as_mapped() {
                Some(backend) => log_redirected(ctx, index, port, backend, choice.port),
                None => log_redirected6(ctx, index, port, choice.id, choice.port),
            }
            options::hurry(ctx, origin, choice.another);
            count_start(index, &choice);
            if !choice.source.is_unspecified() && !(hook.bind)(choice.source) {
                count_source_failed(index);
            }
            (hook.rewrite)(choice.address);
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
fn record(ctx: &SockAddrContext, index: u32, port: PortBe, choice: &Choice) -> Option<&'static mut Origin> {
    // SAFETY: the storage is the socket's own and lives as long as it; the hook runs under the socket's lock.
    let origin = unsafe { RD_ORIGINS.get_or_insert_ptr_mut(ctx, None).as_mut() }?;
    origin.tries = if origin.backend_port.0 == 0 { 0 } else { origin.tries.saturating_add(1) };
    origin.started_ns = maps::now_ns();
    origin.latency_ns = 0;
    origin.backend = choice.address;
    origin.route = index;
    origin.backend_id = choice.id.0;
    origin.vip_port = port;
    origin.backend_port = choice.port;
    origin.idle_seconds = choice.idle_seconds;
    origin.phase = Origin::PHASE_CHOSEN;
    // Whether the socket has a retransmission count of ours stays known.
    origin.marks &= Origin::MARK_HURRIED;
    Some(origin)
}

#[inline(always)]
fn count_source_failed(index: u32) {
    if let Some(stats) = maps::route_stats(index) {
        maps::add(&mut stats.source_failed, 1);
    }
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
fn log_redirected6(ctx: &SockAddrContext, vip: u32, port: PortBe, backend: BackendId, backend_port: PortBe) {
    debug!(ctx, "vip {} port {} goes to IPv6 backend number {} port {}", vip, port.get(), backend.0, backend_port.get());
}

#[inline(never)]
fn log_refused(ctx: &SockAddrContext, vip: u32, port: PortBe) {
    debug!(ctx, "vip {} port {} is refused", vip, port.get());
}
