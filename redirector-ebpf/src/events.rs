//! Events: the caller of a connect, and its outcome. Nothing here waits, and while nobody reads
//! events the only cost is testing one flag.
//!
//! The kernel wakes the ring's reader only if it has read all earlier events. The reader pauses
//! after each pass, so that wake-ups, each of which costs more than an event, happen a few times a
//! second at most.

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ringbuf_reserve,
    bpf_ringbuf_submit,
};
use redirector_common::{
    addr::PortBe,
    decide::{self, ConnectOutcome, Denial, Tables},
    event::{DenyReason, Event, EventKind},
    event_budget,
    origin::Origin,
    sampling::{Sampling, scramble},
};

use crate::{maps, tables::KernelTables};

/// The final statistics of an established connection.
pub(crate) struct FinalStats {
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) retransmitted: u32,
    pub(crate) srtt_us: u32,
}

const NO_STATS: FinalStats = FinalStats { rx_bytes: 0, tx_bytes: 0, retransmitted: 0, srtt_us: 0 };

/// Records the caller of a connect if anybody reads events. Later hooks can't: they run in the
/// context of whichever process the packet interrupted.
///
/// Reading process and command costs as much as selecting a backend. While successes are sampled,
/// it is read only for a connect whose success is reported or that is `likely_to_fail`, as is a
/// socket's second try.
#[inline(always)]
pub(crate) fn begin(origin: &mut Origin, likely_to_fail: bool) {
    let sampling = maps::control().sampling;
    origin.sampling = sampling;
    if sampling.level() == 0 {
        return;
    }
    if sampling.level() > 1 {
        origin.sampling = sampling.draw(scramble(KernelTables.connects(origin.route)));
        if !origin.sampling.reports_success() && !likely_to_fail && origin.tries == 0 {
            return;
        }
    }
    origin.pid = pid();
    command(&raw mut origin.comm);
}

/// The cgroup of the process that connects.
#[inline(always)]
pub(crate) fn cgroup() -> u64 {
    // SAFETY: takes nothing and changes nothing of ours.
    unsafe { bpf_get_current_cgroup_id() }
}

#[inline(always)]
fn pid() -> u32 {
    // SAFETY: as above.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

#[inline(always)]
fn command(to: *mut [u8; 16]) {
    // SAFETY: writes 16 bytes, zeros on failure.
    unsafe { bpf_get_current_comm(to.cast(), 16) };
}

/// A backend has accepted the connect.
#[inline(always)]
pub(crate) fn established(origin: &Origin) {
    log!(established(origin));
    if origin.sampling.reports_success() {
        let timing = Timing {
            at_ns: origin.started_ns.wrapping_add(origin.latency_ns),
            elapsed_ns: origin.latency_ns,
        };
        if maps::admit_success() {
            let sampling = origin.sampling;
            emit(origin, &Summary { kind: EventKind::Established, timing, sampling }, || NO_STATS);
        }
    }
}

/// An established connection has ended.
#[inline(always)]
pub(crate) fn closed(origin: &Origin, stats: impl FnOnce() -> FinalStats) {
    log!(closed(origin));
    if origin.sampling.reports_success() && maps::admit_success() {
        ended(origin, EventKind::Closed, (maps::now_ns(), origin.sampling), stats);
    }
}

/// The backend has reset an established connection before a byte arrived. A failure, so it is never
/// sampled.
#[inline(always)]
pub(crate) fn reset(origin: &Origin, stats: impl FnOnce() -> FinalStats) {
    log!(closed(origin));
    if !origin.sampling.is_off() {
        let at_ns = maps::now_ns();
        let sampling = maps::admit_failure(client(origin.cgroup, origin.route), at_ns);
        if !sampling.is_off() {
            ended(origin, EventKind::Reset, (at_ns, sampling), stats);
        }
    }
}

/// Reports the end of an established connection, with its statistics.
#[inline(always)]
fn ended(
    origin: &Origin,
    kind: EventKind,
    (at_ns, sampling): (u64, Sampling),
    stats: impl FnOnce() -> FinalStats,
) {
    let elapsed_ns = at_ns.wrapping_sub(origin.started_ns).wrapping_sub(origin.latency_ns);
    emit(origin, &Summary { kind, timing: Timing { at_ns, elapsed_ns }, sampling }, stats);
}

/// The connect has ended without being established.
#[inline(always)]
pub(crate) fn failed(origin: &Origin, outcome: ConnectOutcome) {
    log!(failed(origin, outcome));
    if !origin.sampling.is_off() {
        let at_ns = maps::now_ns();
        // A connect that was never sent has no start time.
        let elapsed_ns = if outcome == ConnectOutcome::Unsent {
            0
        } else {
            at_ns.wrapping_sub(origin.started_ns)
        };
        let sampling = maps::admit_failure(client(origin.cgroup, origin.route), at_ns);
        if !sampling.is_off() {
            let (kind, timing) = (outcome.event_kind(), Timing { at_ns, elapsed_ns });
            emit(origin, &Summary { kind, timing, sampling }, || NO_STATS);
        }
    }
}

struct Timing {
    at_ns: u64,
    elapsed_ns: u64,
}

struct Summary {
    kind: EventKind,
    timing: Timing,
    sampling: Sampling,
}

/// Whose budget an event counts against: the cgroup's, or the route's if the caller is unknown.
#[inline(always)]
fn client(cgroup: u64, route: u32) -> u64 {
    if cgroup == 0 { event_budget::unknown_caller(route) } else { cgroup }
}

/// Writes one field in one store. To write a whole event the compiler would clear a copy on the
/// stack by `memset` first.
macro_rules! put {
    ($event:ident.$field:ident = $value:expr) => {
        // SAFETY: `submit` reserves room for one event.
        unsafe { core::ptr::write_volatile(&raw mut (*$event).$field, $value) }
    };
}

#[inline(always)]
fn emit(origin: &Origin, summary: &Summary, stats: impl FnOnce() -> FinalStats) {
    let Summary { kind, timing, sampling } = summary;
    submit(|event| {
        let stats = stats();
        put!(event.at_ns = timing.at_ns);
        put!(event.elapsed_ns = timing.elapsed_ns);
        put!(event.cgroup = origin.cgroup);
        put!(event.rx_bytes = stats.rx_bytes);
        put!(event.tx_bytes = stats.tx_bytes);
        // SAFETY: both are 16 bytes, aligned to 8.
        unsafe {
            copy16((&raw const origin.backend).cast(), (&raw mut (*event).backend).cast());
            copy16((&raw const origin.comm).cast(), (&raw mut (*event).comm).cast());
        }
        put!(event.pid = origin.pid);
        put!(event.route = origin.route);
        put!(event.srtt_us = stats.srtt_us);
        put!(event.retransmitted = stats.retransmitted);
        put!(event.vip_port = origin.vip_port);
        put!(event.backend_port = origin.backend_port);
        put!(event.kind = *kind as u8);
        put!(event.reason = reason(origin));
        put!(event.client = u8::from(origin.flags & Origin::FLAG_VIP6 != 0));
        put!(event.sampling = *sampling);
    });
}

/// Why the connect was not sent, if that is known.
#[inline(always)]
fn reason(origin: &Origin) -> u8 {
    origin.evidence / Origin::EVIDENCE_NO_PORT % 2 * DenyReason::NoSourcePort as u8
}

/// # Safety
///
/// Both point to 16 bytes, aligned to 8; `from` is readable, `to` writable.
#[inline(always)]
unsafe fn copy16(from: *const u64, to: *mut u64) {
    // SAFETY: the caller's promise.
    unsafe {
        core::ptr::write_volatile(to, core::ptr::read_volatile(from));
        core::ptr::write_volatile(to.add(1), core::ptr::read_volatile(from.add(1)));
    }
}

/// A connect that is not redirected: denied, or left alone.
pub(crate) struct Denied {
    pub(crate) denial: Denial,
    pub(crate) route: u32,
    /// The port that the client asked for.
    pub(crate) vip_port: PortBe,
}

/// Reports a denied connect with its caller.
#[inline(always)]
pub(crate) fn denied(denied: &Denied) {
    rd_denied(denied.route, u32::from(denied.vip_port.0), denied.denial.to_bits());
}

/// See [`denied()`]. A global function, which the verifier checks once; `denial` is a [`Denial`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_denied(route: u32, vip_port: u32, denial: u32) -> u32 {
    let is_off = maps::control().sampling.is_off();
    if is_off && cfg!(not(feature = "debug-log")) {
        return 0;
    }
    let (vip_port, denial) = (PortBe(vip_port as u16), Denial::from_bits(denial));
    let reason = if denial.is_no_memory() {
        DenyReason::NoMemory
    } else {
        decide::deny_reason(&KernelTables, route, vip_port)
    };
    log!(denied(route, vip_port, denial, reason));
    if is_off && cfg!(feature = "debug-log") {
        return 0;
    }
    let (at_ns, cgroup) = (maps::now_ns(), cgroup());
    let sampling = maps::admit_failure(cgroup, at_ns);
    if sampling.is_off() {
        return 0;
    }
    submit(|event| {
        put!(event.at_ns = at_ns);
        put!(event.elapsed_ns = 0);
        put!(event.cgroup = cgroup);
        put!(event.rx_bytes = 0);
        put!(event.tx_bytes = 0);
        // SAFETY: `submit` reserves room for one event.
        unsafe { copy16([0; 2].as_ptr(), (&raw mut (*event).backend).cast()) };
        // SAFETY: as above.
        command(unsafe { &raw mut (*event).comm });
        put!(event.pid = pid());
        put!(event.route = route);
        put!(event.srtt_us = 0);
        put!(event.retransmitted = 0);
        put!(event.vip_port = vip_port);
        put!(event.backend_port = PortBe(0));
        put!(event.kind = denial.kind());
        put!(event.reason = reason as u8);
        put!(event.client = denial.vip6());
        put!(event.sampling = sampling);
    });
    1
}

/// Puts an event into the ring, or counts it as lost.
#[inline(always)]
fn submit(fill: impl FnOnce(*mut Event)) {
    // SAFETY: the helper returns null or as much memory as requested, aligned to 8 bytes.
    let event =
        unsafe { bpf_ringbuf_reserve(maps::ring(), size_of::<Event>() as u64, 0) }.cast::<Event>();
    if event.is_null() {
        maps::count_lost();
        return;
    }
    fill(event);
    // SAFETY: the memory was reserved above, and is submitted once.
    unsafe { bpf_ringbuf_submit(event.cast(), 0) };
}
