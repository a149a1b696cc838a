//! `connect4` and `connect6`: TCP to the pool gets a backend, DNS goes to [`crate::dns_intercept`];
//! everything else is left alone.

use core::sync::atomic::{Ordering::SeqCst, compiler_fence};

use aya_ebpf::{helpers::generated::bpf_set_retval, programs::SockAddrContext};
use redirector_common::{
    addr::{Ip4Be, Ip6Be, PortBe},
    backend::BackendId,
    decide::{self, Choice, Client, Families, Verdict},
    event::Event,
    origin::Origin,
    stats::RouteStats,
};

use crate::{
    ctx::SockAddr,
    dns_intercept,
    events::{self, Denied},
    health, maps, outcome, sockopts,
    tables::KernelTables,
    verdict::{ALLOW, DENY},
};

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
    let Some(index) = maps::pool4().index(addr.ip4()) else {
        dns_intercept::forward4(ctx);
        return ALLOW;
    };
    let rewrite = |to: Ip6Be| addr.set_ip4(Ip4Be(to.0[3]));
    let bind = |source: Ip6Be| addr.is_bound4() || sockopts::bind4(ctx, Ip4Be(source.0[3]));
    redirect(ctx, &addr, index, Hook { families: Families::ONLY4, vip6: false, rewrite, bind })
}

/// An IPv6 VIP, or the mapped form of an IPv4 one (a JVM's sockets connect to nothing else).
///
/// A socket for IPv6 only that gets an IPv4 backend is refused by the kernel itself (ENETUNREACH),
/// which no hook can tell beforehand.
#[inline(always)]
pub(crate) fn connect6(ctx: &SockAddrContext) -> i32 {
    let addr = SockAddr::new(ctx);
    let asked = addr.ip6();
    let (index, vip6) = match asked.as_mapped() {
        Some(ip) => (maps::pool4().index(ip), false),
        None => (maps::pool6().and_then(|pool| pool.index(asked)), true),
    };
    let Some(index) = index else {
        dns_intercept::forward6(ctx, asked);
        return ALLOW;
    };
    let (has_address, has_port) = addr.is_bound6();
    // An address that the application has bound decides the family.
    let families = Families { six_first: vip6, both: !has_address };
    let bind = |source: Ip6Be| has_address || has_port || sockopts::bind6(ctx, source);
    redirect(ctx, &addr, index, Hook { families, vip6, rewrite: |to| addr.set_ip6(to), bind })
}

#[inline(always)]
fn redirect(
    ctx: &SockAddrContext,
    addr: &SockAddr,
    index: u32,
    hook: Hook<impl FnOnce(Ip6Be), impl FnOnce(Ip6Be) -> bool>,
) -> i32 {
    if !addr.is_tcp() {
        return ALLOW;
    }
    let denied = |kind, forgotten| Denied {
        kind,
        route: index,
        vip6: hook.vip6,
        asked: addr.port(),
        forgotten,
    };
    // Without a place for the origin, no hook could tell the socket's peer or its fate.
    let Some(origin) = maps::origin_or_new(ctx) else {
        return refuse(&denied(Event::DENIED, true));
    };
    // What the socket did before is over now.
    outcome::settle(origin);
    // The short ways end in a `take` of their own, in which what they never say costs nothing.
    let client = Socket { addr, families: hook.families, origin };
    if let Some(choice) = decide::only(&KernelTables, index, &client) {
        return take(ctx, addr, index, hook, origin, choice);
    }
    if let Some(choice) = decide::one_of_few(&KernelTables, index, &client) {
        return take(ctx, addr, index, hook, origin, choice);
    }
    let mut choice = Choice::default();
    match decide::connect(&KernelTables, index, &client, &mut choice) {
        Verdict::Redirect => take(ctx, addr, index, hook, origin, choice),
        Verdict::Refuse => refuse(&denied(Event::DENIED, false)),
        Verdict::Pass => {
            events::denied(&denied(Event::PASSED, false));
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
        self.origin.id()
    }
}

/// Sends the socket to the backend that was chosen.
#[inline(always)]
fn take(
    ctx: &SockAddrContext,
    addr: &SockAddr,
    index: u32,
    hook: Hook<impl FnOnce(Ip6Be), impl FnOnce(Ip6Be) -> bool>,
    origin: &mut Origin,
    choice: Choice,
) -> i32 {
    origin.backend = choice.address(&KernelTables, hook.families);
    origin.backend_id = choice.id().0;
    // The slot is stored before more is read: kept beside that, its parts would have to go by way
    // of the stack.
    compiler_fence(SeqCst);
    record(origin, index, addr.port(), choice);
    if hook.vip6 {
        origin.marks |= Origin::MARK_VIP6;
    }
    (hook.rewrite)(origin.backend);
    addr.set_port(choice.port());
    events::begin(origin, choice.trial() || choice.desperate());
    if choice.trial() {
        health::try_out(origin.id());
    }
    sockopts::take_time(ctx, origin);
    if choice.desperate() {
        count(index, |stats| &mut stats.desperate);
    }
    if choice.has_options() {
        let extras = choice.options(&KernelTables, index, hook.families);
        origin.idle_seconds = extras.idle_seconds;
        if !extras.source.is_unspecified() && !(hook.bind)(extras.source) {
            count(index, |stats| &mut stats.source_failed);
        }
    }
    ALLOW
}

/// Remembers where the socket wanted to go.
#[inline(always)]
fn record(origin: &mut Origin, index: u32, port: PortBe, choice: Choice) {
    origin.tries = if origin.backend_port.0 == 0 { 0 } else { origin.tries.saturating_add(1) };
    origin.latency_ns = 0;
    origin.route = index;
    origin.vip_port = port;
    origin.backend_port = choice.port();
    origin.idle_seconds = 0;
    origin.phase = Origin::PHASE_CHOSEN;
    // Whether the socket has a retransmission count of ours stays known.
    origin.marks &= Origin::MARK_LIMITED;
    if choice.another() {
        origin.marks |= Origin::MARK_HURRIED;
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
    // SAFETY: sets this call's return value only. For a kernel that lacks this helper the loader
    // takes the call out.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    DENY
}
