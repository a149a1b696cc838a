//! `connect4` and `connect6`: a TCP connect to the pool gets a backend, [`crate::dns_intercept`]
//! handles DNS, and everything else is left alone.

use core::sync::atomic::{Ordering::SeqCst, compiler_fence};

use aya_ebpf::{helpers::generated::bpf_set_retval, programs::SockAddrContext};
use redirector_common::{
    addr::{Ip4Be, Ip6Be, PortBe},
    backend::{BackendId, Witness},
    decide::{self, Backend, Client, Denial, Families, Verdict},
    event::EventKind,
    origin::Origin,
    stats::RouteStats,
};

use crate::{
    ctx::SockAddr,
    dns_intercept,
    events::{self, Denied},
    health, maps, opaque, outcome, pools, sockopts,
    tables::KernelTables,
    verdict::{ALLOW, DENY},
};

const ECONNREFUSED: i32 = 111;

/// What the hooks of the two families do differently.
struct Hook<R, I, B> {
    families: Families,
    /// The client asked for an IPv6 VIP.
    vip6: bool,
    rewrite: R,
    /// Whether the application has bound the socket.
    is_bound: I,
    bind: B,
}

#[inline(always)]
pub(crate) fn connect4(ctx: &SockAddrContext) -> i32 {
    let addr = SockAddr::new(ctx);
    if addr.has_only_address4() {
        unbind(ctx, || sockopts::unbind4(ctx));
    }
    let Some(index) = pools::pool4().index(addr.ip4()) else {
        dns_intercept::redirect_query4(ctx);
        return ALLOW;
    };
    let rewrite = |to: Ip6Be| addr.set_ip4(Ip4Be(to.0[3]));
    let bind = |source: Ip6Be| sockopts::bind4(ctx, Ip4Be(source.0[3]));
    let hook = Hook {
        families: Families::V4_ONLY,
        vip6: false,
        rewrite,
        is_bound: || addr.is_bound4(),
        bind,
    };
    redirect(ctx, &addr, index, hook)
}

/// An IPv6 VIP, or the mapped form of an IPv4 one (a JVM's sockets connect to nothing else).
///
/// A socket with IPV6_V6ONLY that gets an IPv4 backend is refused by the kernel itself
/// (ENETUNREACH); no hook can see the option beforehand.
#[inline(always)]
pub(crate) fn connect6(ctx: &SockAddrContext) -> i32 {
    let addr = SockAddr::new(ctx);
    if addr.is_bound6() == (true, false) {
        unbind(ctx, || sockopts::unbind6(ctx));
    }
    let destination = addr.ip6();
    let (index, vip6) = match destination.as_mapped() {
        Some(ip) => (pools::pool4().index(ip), false),
        None => (pools::pool6().and_then(|pool| pool.index(destination)), true),
    };
    let Some(index) = index else {
        dns_intercept::redirect_query6(ctx, destination);
        return ALLOW;
    };
    let (has_address, has_port) = addr.is_bound6();
    // An address that the application has bound decides the family.
    let families = Families { prefer_v6: vip6, dual_stack: !has_address };
    let hook = Hook {
        families,
        vip6,
        rewrite: |to| addr.set_ip6(to),
        is_bound: || has_address || has_port,
        bind: |source| sockopts::bind6(ctx, source),
    };
    redirect(ctx, &addr, index, hook)
}

/// Undoes the binding to a route's source address that an earlier connect of the socket, which has
/// failed, left behind. The caller has checked that the socket is bound to an address without a
/// port, which hardly any other is.
#[inline(always)]
fn unbind(ctx: &SockAddrContext, bind: impl FnOnce() -> bool) {
    let Some(origin) = maps::origin(SockAddr::new(ctx).sk()) else { return };
    if origin.flags & Origin::FLAG_BOUND != 0 && bind() {
        origin.flags &= !Origin::FLAG_BOUND;
    }
}

#[inline(always)]
fn redirect(
    ctx: &SockAddrContext,
    addr: &SockAddr,
    index: u32,
    hook: Hook<impl FnOnce(Ip6Be), impl FnOnce() -> bool, impl FnOnce(Ip6Be) -> bool>,
) -> i32 {
    if !addr.is_tcp() {
        return ALLOW;
    }
    let denied = |kind, no_memory| Denied {
        denial: Denial::new(kind, hook.vip6, no_memory),
        route: index,
        vip_port: addr.port(),
    };
    // Without a recorded origin no later hook could restore the socket's peer or count its outcome.
    let Some(origin) = maps::origin_or_new(ctx) else {
        return refuse(&denied(EventKind::Denied, true));
    };
    // An earlier connect of this socket is over.
    if origin.phase == Origin::PHASE_CHOSEN {
        outcome::note_route(origin, addr.last_destination4());
    }
    outcome::finish_in_flight(origin);
    origin.cgroup = events::cgroup();
    let client = Socket { addr, families: hook.families, origin };
    // Each fast path has its own `apply_backend`, so that what it never uses is compiled out.
    if let Some(backend) = decide::single_backend(&KernelTables, index, &client) {
        return apply_backend(Connect { addr, index, origin }, hook, backend);
    }
    if let Some(backend) = decide::few_backends(&KernelTables, index, &client) {
        return apply_backend(Connect { addr, index, origin }, hook, backend);
    }
    let mut backend = Backend::default();
    match decide::connect(&KernelTables, index, &client, &mut backend) {
        Verdict::Redirect => apply_backend(Connect { addr, index, origin }, hook, backend),
        Verdict::Refuse => refuse(&denied(EventKind::Denied, false)),
        Verdict::Pass => {
            events::denied(&denied(EventKind::Passed, false));
            count(index, |stats| &mut stats.passed);
            ALLOW
        }
    }
}

/// The socket that connects.
struct Socket<'a> {
    addr: &'a SockAddr,
    families: Families,
    origin: &'a Origin,
}

impl Client for Socket<'_> {
    #[inline(always)]
    fn port(&self) -> PortBe {
        self.addr.port()
    }

    #[inline(always)]
    fn families(&self) -> Families {
        self.families
    }

    #[inline(always)]
    fn last(&self) -> BackendId {
        self.origin.backend_id
    }

    #[inline(always)]
    fn witness(&self) -> Witness {
        Witness::cgroup(self.origin.cgroup)
    }
}

/// A connect to route `index` that is being redirected.
struct Connect<'a> {
    addr: &'a SockAddr,
    index: u32,
    origin: &'a mut Origin,
}

/// Sends the socket to its backend.
#[inline(always)]
fn apply_backend(
    connect: Connect<'_>,
    hook: Hook<impl FnOnce(Ip6Be), impl FnOnce() -> bool, impl FnOnce(Ip6Be) -> bool>,
    backend: Backend,
) -> i32 {
    let Connect { addr, index, origin } = connect;
    origin.backend = backend.address(&KernelTables, hook.families);
    origin.backend_id = backend.id();
    // All uses of the slot come before the next read, or its parts would be spilled to the stack.
    compiler_fence(SeqCst);
    record(origin, index, addr.port(), backend);
    if hook.vip6 {
        origin.flags |= Origin::FLAG_VIP6;
    }
    (hook.rewrite)(origin.backend);
    addr.set_port(backend.port());
    log!(redirected(origin, backend));
    events::begin(origin, backend.is_trial() || backend.all_ejected());
    if backend.is_trial() {
        health::start_trial(origin.backend_id, health::caller(origin));
    }
    if backend.all_ejected() {
        count(index, |stats| &mut stats.all_ejected);
    }
    if backend.has_options() {
        let options = backend.options(&KernelTables, index, hook.families);
        origin.idle_seconds = options.idle_seconds;
        if !options.source.is_unspecified() && !(hook.is_bound)() {
            // Not a branch: see `outcome::count_outcome`.
            let is_bound = opaque::number(u64::from((hook.bind)(options.source)));
            origin.flags |= is_bound as u8 * Origin::FLAG_BOUND;
            if let Some(stats) = maps::route_stats(index) {
                maps::add(&mut stats.source_ip_failed, opaque::number(is_bound ^ 1));
            }
        }
    }
    ALLOW
}

/// Records where the socket wanted to go, and where it is sent.
#[inline(always)]
fn record(origin: &mut Origin, index: u32, port: PortBe, backend: Backend) {
    origin.tries = if origin.backend_port.0 == 0 { 0 } else { origin.tries.saturating_add(1) };
    origin.latency_ns = 0;
    origin.route = index;
    origin.vip_port = port;
    origin.backend_port = backend.port();
    origin.idle_seconds = 0;
    origin.evidence = 0;
    origin.phase = Origin::PHASE_CHOSEN;
    // The socket keeps its number of SYN retransmissions and its address, so the flags stay.
    origin.flags &= Origin::FLAG_SYN_RETRIES_SET | Origin::FLAG_BOUND;
    if backend.has_alternative() {
        origin.flags |= Origin::FLAG_SHORT_TIMEOUT;
    }
}

/// Adds one to a counter of route `index`.
#[inline(always)]
fn count(index: u32, counter: impl FnOnce(&mut RouteStats) -> &mut u64) {
    if let Some(stats) = maps::route_stats(index) {
        maps::add(counter(stats), 1);
    }
}

#[inline(always)]
fn refuse(denied: &Denied) -> i32 {
    events::denied(denied);
    count(denied.route, |stats| &mut stats.denied);
    // SAFETY: sets the return value of this call only. The loader removes the call for a kernel
    // without this helper.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    DENY
}
