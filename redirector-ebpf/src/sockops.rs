//! `sock_ops`: follows each redirected connection from its SYN to its end.

use aya_ebpf::{bindings::bpf_sock_ops, programs::SockOpsContext};
use redirector_common::{
    addr::{Ip4Be, Ip6Be, PortBe},
    decide::{self, FinalCounters},
    origin::Origin,
};

use crate::{
    ctx::{TCP_CLOSE, TCP_ESTABLISHED, TCP_SYN_SENT, read},
    events::{self, FinalStats},
    health,
    maps::{self, add},
    outcome, sockopts,
};

// `enum` values of `bpf_sock_ops.op` (uapi/linux/bpf.h).
const TIMEOUT_INIT: u32 = 1;
const TCP_CONNECT: u32 = 3;
const ACTIVE_ESTABLISHED: u32 = 4;
const RTO: u32 = 8;
const STATE: u32 = 10;

// Flags of the optional callbacks that a socket can enable.
const RTO_FLAG: u32 = 1;
/// Enables no callback that we use: it marks a connect with a short timeout, so that finding it
/// takes no lookup.
const RETRANS_FLAG: u32 = 2;
const STATE_FLAG: u32 = 4;

const AF_INET: u32 = 2;

#[inline(always)]
pub(crate) fn on_event(ctx: &SockOpsContext) {
    match ctx.op() {
        TCP_CONNECT => on_connect(ctx),
        // Only redirected sockets have the flags, set by `on_connect`: all others leave here.
        TIMEOUT_INIT | ACTIVE_ESTABLISHED | RTO | STATE if ctx.cb_flags() & STATE_FLAG == 0 => {}
        TIMEOUT_INIT if ctx.cb_flags() & RETRANS_FLAG == 0 => {}
        TIMEOUT_INIT => on_syn_timeout(ctx),
        ACTIVE_ESTABLISHED => on_established(ctx),
        RTO => on_retransmission(ctx),
        STATE => on_state_change(ctx),
        _ => {}
    }
}

#[inline(always)]
fn origin(ctx: &SockOpsContext) -> Option<&'static mut Origin> {
    let sk = read!((*ctx.ops).__bindgen_anon_2.sk);
    if sk.is_null() { None } else { maps::origin(sk.cast()) }
}

/// The SYN is about to leave: the final addresses are known. Enables the callbacks that follow the
/// connection.
#[inline(always)]
fn on_connect(ctx: &SockOpsContext) {
    let Some(origin) = origin(ctx) else { return };
    let (address, port) = peer(ctx.ops);
    if origin.phase != Origin::PHASE_CHOSEN || !origin.is_peer(address, port) {
        return;
    }
    origin.phase = Origin::PHASE_CONNECTING;
    origin.started_ns = maps::now_ns();
    // The helper replaces the flags, so those of other programs are set again.
    let short_timeout = u32::from(origin.flags & Origin::FLAG_SHORT_TIMEOUT)
        / u32::from(Origin::FLAG_SHORT_TIMEOUT)
        * RETRANS_FLAG;
    let _ = ctx.set_cb_flags((ctx.cb_flags() | RTO_FLAG | STATE_FLAG | short_timeout) as i32);
    if let Some(stats) = maps::route_stats(origin.route) {
        add(&mut stats.started, 1);
    }
    if let Some(stats) = maps::backend_stats(origin.backend_id) {
        add(&mut stats.started, 1);
    }
}

/// The kernel asks for the timeout of a SYN: at its first transmission, and at each timeout to
/// compute when to give up.
#[inline(always)]
fn on_syn_timeout(ctx: &SockOpsContext) {
    let Some(origin) = origin(ctx) else { return };
    if let Some(jiffies) = sockopts::syn_timeout(origin) {
        ctx.set_reply(jiffies);
    }
}

#[inline(always)]
fn on_established(ctx: &SockOpsContext) {
    let Some(origin) = origin(ctx) else { return };
    if origin.phase != Origin::PHASE_CONNECTING {
        return;
    }
    origin.phase = Origin::PHASE_ESTABLISHED;
    let now = maps::now_ns();
    origin.latency_ns = now.wrapping_sub(origin.started_ns);
    if health::record_success(origin.backend_id, health::caller(origin), now) {
        origin.evidence |= Origin::EVIDENCE_AWAITED;
    }
    sockopts::restore_syn_retries(ctx.ops, origin);
    if origin.idle_seconds != 0 {
        sockopts::enable_keepalive(ctx.ops, origin.idle_seconds);
    }
    if let Some(stats) = maps::route_stats(origin.route) {
        add(&mut stats.established, 1);
        add(&mut stats.connect_ns, origin.latency_ns);
    }
    if let Some(stats) = maps::backend_stats(origin.backend_id) {
        add(&mut stats.established, 1);
    }
    if let Some(times) = maps::route_times(origin.route) {
        maps::count_latency(times, origin.latency_ns);
    }
    if let Some(times) = maps::backend_times(origin.backend_id) {
        add(&mut times.connect_ns, origin.latency_ns);
    }
    events::established(origin);
}

/// The retransmission timer fired; the third argument is set when the kernel gives up. The first
/// retransmission ejects the backend.
#[inline(always)]
fn on_retransmission(ctx: &SockOpsContext) {
    let Some(origin) = origin(ctx) else { return };
    if read!((*ctx.ops).__bindgen_anon_1.args[2]) != 0 {
        origin.flags |= Origin::FLAG_EXPIRED;
    }
    if origin.phase != Origin::PHASE_CONNECTING {
        return;
    }
    origin.flags |= Origin::FLAG_RETRANSMITTED;
    sockopts::shorten_syn_timeout(ctx.ops, origin);
    if !is_misbound(ctx, origin) {
        outcome::record_failure_once(origin);
    }
}

#[inline(always)]
fn on_state_change(ctx: &SockOpsContext) {
    let from = read!((*ctx.ops).__bindgen_anon_1.args[0]);
    let to = read!((*ctx.ops).__bindgen_anon_1.args[1]);
    if to != TCP_CLOSE {
        return;
    }
    let Some(origin) = origin(ctx) else { return };
    if from == TCP_SYN_SENT && origin.phase == Origin::PHASE_CONNECTING {
        origin.evidence = evidence(ctx, origin);
        sockopts::restore_syn_retries(ctx.ops, origin);
        outcome::finish_in_flight(origin);
    } else if from >= TCP_ESTABLISHED && origin.phase == Origin::PHASE_ESTABLISHED {
        on_closed(ctx, origin, from);
    }
}

/// Whether a segment has answered the SYN, and whether an error has emptied the queue with it.
#[inline(always)]
fn evidence(ctx: &SockOpsContext, origin: &Origin) -> u8 {
    let mut evidence = 0;
    if read!((*ctx.ops).segs_in) != 0 {
        evidence |= Origin::EVIDENCE_ANSWERED;
    }
    if read!((*ctx.ops).packets_out) == 0 {
        evidence |= Origin::EVIDENCE_ERROR;
    }
    if is_misbound(ctx, origin) {
        evidence |= Origin::EVIDENCE_LOCAL;
    }
    evidence
}

/// Whether the socket is bound to a device, or to loopback with a backend elsewhere: from there no
/// backend may be reachable.
#[inline(always)]
fn is_misbound(ctx: &SockOpsContext, origin: &Origin) -> bool {
    is_local(ctx) && !origin.backend.is_loopback()
}

/// Whether the socket is bound to loopback or to a device. Everything is read before the first
/// branch, as in [`peer`].
#[inline(always)]
fn is_local(ctx: &SockOpsContext) -> bool {
    let ops = ctx.ops;
    let sk = read!((*ops).__bindgen_anon_2.sk);
    if sk.is_null() {
        return false;
    }
    let device = read!((*sk).bound_dev_if);
    let family = read!((*ops).family);
    let ip4 = Ip4Be(read!((*ops).local_ip4));
    let ip6 = Ip6Be([
        read!((*ops).local_ip6[0]),
        read!((*ops).local_ip6[1]),
        read!((*ops).local_ip6[2]),
        read!((*ops).local_ip6[3]),
    ]);
    device != 0 || (if family == AF_INET { Ip6Be::mapped(ip4) } else { ip6 }).is_loopback()
}

/// An established connection has ended. Its statistics are read where they are used: a value kept
/// across a call would be spilled to the stack.
#[inline(always)]
fn on_closed(ctx: &SockOpsContext, origin: &mut Origin, from: u32) {
    origin.phase = Origin::PHASE_DONE;
    let is_reset = from == TCP_ESTABLISHED && is_early_reset(ctx, origin);
    if is_reset {
        outcome::record_reset(origin.route, origin.backend_id, health::caller(origin));
    } else if origin.evidence & Origin::EVIDENCE_AWAITED != 0 && is_served(ctx) {
        health::record_service(origin.backend_id, health::caller(origin));
    }
    if let Some(stats) = maps::route_stats(origin.route) {
        add(&mut stats.closed, 1);
        add(&mut stats.rx_bytes, read!((*ctx.ops).bytes_received));
        add(&mut stats.tx_bytes, read!((*ctx.ops).bytes_acked));
        add(&mut stats.retransmitted, u64::from(read!((*ctx.ops).total_retrans)));
    }
    if let Some(stats) = maps::backend_stats(origin.backend_id) {
        add(&mut stats.closed, 1);
    }
    if let Some(times) = maps::route_times(origin.route) {
        add(&mut times.srtt_us, u64::from(srtt_us(ctx)));
    }
    if let Some(times) = maps::backend_times(origin.backend_id) {
        add(&mut times.srtt_us, u64::from(srtt_us(ctx)));
    }
    let stats = || FinalStats {
        rx_bytes: read!((*ctx.ops).bytes_received),
        tx_bytes: read!((*ctx.ops).bytes_acked),
        retransmitted: read!((*ctx.ops).total_retrans),
        srtt_us: srtt_us(ctx),
    };
    if is_reset {
        events::reset(origin, stats);
    } else {
        events::closed(origin, stats);
    }
}

/// Whether data has arrived. The kernel counts a FIN as a byte.
#[inline(always)]
fn is_served(ctx: &SockOpsContext) -> bool {
    read!((*ctx.ops).bytes_received) > 1
}

/// Whether the backend has ended the connection before a byte arrived, soon after it accepted it.
/// A function of its own, so that others pay one branch for it.
#[inline(never)]
fn is_early_reset(ctx: &SockOpsContext, origin: &Origin) -> bool {
    let age = maps::now_ns().wrapping_sub(origin.started_ns).wrapping_sub(origin.latency_ns);
    let sent = read!((*ctx.ops).data_segs_out);
    let socket = FinalCounters {
        segments_in: read!((*ctx.ops).segs_in),
        segments_out: read!((*ctx.ops).segs_out),
        data_segments_out: sent,
        retransmitted: read!((*ctx.ops).total_retrans),
        unacknowledged: read!((*ctx.ops).snd_nxt).wrapping_sub(read!((*ctx.ops).snd_una)),
        queued: read!((*ctx.ops).packets_out),
    };
    decide::is_early_reset(read!((*ctx.ops).bytes_received), sent != 0, age)
        && decide::ended_by_reset(origin.flags, &socket)
        && !is_misbound(ctx, origin)
}

/// The smoothed round-trip time, of which the kernel keeps eighths.
#[inline(always)]
fn srtt_us(ctx: &SockOpsContext) -> u32 {
    read!((*ctx.ops).srtt_us) >> 3
}

/// The actual peer. A dual-stack socket has the mapped address in `remote_ip6`.
///
/// Everything is read before the first branch: the compiler merges loads of two branches into one
/// at a computed offset, "dereference of modified ctx ptr R7 off=44 disallowed" (6.18).
#[inline(always)]
fn peer(ops: *mut bpf_sock_ops) -> (Ip6Be, PortBe) {
    let family = read!((*ops).family);
    let ip4 = Ip4Be(read!((*ops).remote_ip4));
    let ip6 = Ip6Be([
        read!((*ops).remote_ip6[0]),
        read!((*ops).remote_ip6[1]),
        read!((*ops).remote_ip6[2]),
        read!((*ops).remote_ip6[3]),
    ]);
    // Network order, in the upper half of the word on a little-endian machine.
    let port = PortBe((read!((*ops).remote_port) >> 16) as u16);
    (if family == AF_INET { Ip6Be::mapped(ip4) } else { ip6 }, port)
}
