//! Events: who called connect, and what became of it. Nothing here waits, and while nobody reads,
//! all that it costs is one look at a flag.
//!
//! The kernel wakes the ring's reader only for an event that finds everything before it read. The
//! reader rests after each look, so that a wake-up, which costs more than the event, happens a few
//! times a second at most.

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ringbuf_reserve,
    bpf_ringbuf_submit,
};
use redirector_common::{
    addr::PortBe,
    decide::{self, End, Tables},
    event::{self, Event},
    origin::Origin,
};

use crate::{maps, tables::KernelTables};

/// The last numbers of an established connection.
pub(crate) struct Last {
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) retransmitted: u32,
    pub(crate) srtt_us: u32,
}

const NONE: Last = Last { rx_bytes: 0, tx_bytes: 0, retransmitted: 0, srtt_us: 0 };

/// At the connect: remembers who called, if anybody reads. Later hooks run in whatever process the
/// packet met.
///
/// Asking costs a connect as much as choosing its backend. So under pressure, when of many
/// successes one is told, only those are asked, and the ones that are likely to fail: a `doubtful`
/// backend, and a socket that tries again.
#[inline(always)]
pub(crate) fn begin(origin: &mut Origin, doubtful: bool) {
    let events = maps::control().events;
    origin.told = events;
    if events == 0 {
        return;
    }
    if events > 1 {
        origin.told = event::drawn(events, event::mixed(KernelTables.turn(origin.route)));
        if !event::tells_success(origin.told) && !doubtful && origin.tries == 0 {
            return;
        }
    }
    origin.cgroup = cgroup();
    origin.pid = pid();
    command(&raw mut origin.comm);
}

#[inline(always)]
fn cgroup() -> u64 {
    // SAFETY: takes nothing, touches nothing of ours.
    unsafe { bpf_get_current_cgroup_id() }
}

#[inline(always)]
fn pid() -> u32 {
    // SAFETY: as above.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

#[inline(always)]
fn command(to: *mut [u8; 16]) {
    // SAFETY: writes the 16 bytes that it is told, and zeroes if it can't.
    unsafe { bpf_get_current_comm(to.cast(), 16) };
}

/// A backend has accepted the connect.
#[inline(always)]
pub(crate) fn established(origin: &Origin) {
    if event::tells_success(origin.told) {
        let moment = Moment {
            at_ns: origin.started_ns.wrapping_add(origin.latency_ns),
            elapsed_ns: origin.latency_ns,
        };
        tell(origin, Event::ESTABLISHED, moment, || NONE);
    }
}

/// An established connection has ended.
#[inline(always)]
pub(crate) fn closed(origin: &Origin, last: impl FnOnce() -> Last) {
    if event::tells_success(origin.told) {
        let at_ns = maps::now_ns();
        tell(
            origin,
            Event::CLOSED,
            Moment {
                at_ns,
                elapsed_ns: at_ns.wrapping_sub(origin.started_ns).wrapping_sub(origin.latency_ns),
            },
            last,
        );
    }
}

/// The connect has ended without being established.
#[inline(always)]
pub(crate) fn failed(origin: &Origin, end: End) {
    if origin.told != 0 {
        let at_ns = maps::now_ns();
        // What was never sent has no beginning.
        let elapsed_ns = if end == End::Unsent { 0 } else { at_ns.wrapping_sub(origin.started_ns) };
        tell(origin, end.event_kind(), Moment { at_ns, elapsed_ns }, || NONE);
    }
}

struct Moment {
    at_ns: u64,
    elapsed_ns: u64,
}

/// Writes one field, in one store. Of a whole event the compiler makes a copy on the stack and a
/// call of `memset` first.
macro_rules! put {
    ($event:ident.$field:ident = $value:expr) => {
        // SAFETY: `send` gives room for one event.
        unsafe { core::ptr::write_volatile(&raw mut (*$event).$field, $value) }
    };
}

#[inline(always)]
fn tell(origin: &Origin, kind: u8, moment: Moment, last: impl FnOnce() -> Last) {
    send(|event| {
        let last = last();
        put!(event.at_ns = moment.at_ns);
        put!(event.elapsed_ns = moment.elapsed_ns);
        put!(event.cgroup = origin.cgroup);
        put!(event.rx_bytes = last.rx_bytes);
        put!(event.tx_bytes = last.tx_bytes);
        // SAFETY: both are 16 bytes that begin at a multiple of eight.
        unsafe {
            copy16((&raw const origin.backend).cast(), (&raw mut (*event).backend).cast());
            copy16((&raw const origin.comm).cast(), (&raw mut (*event).comm).cast());
        }
        put!(event.pid = origin.pid);
        put!(event.route = origin.route);
        put!(event.srtt_us = last.srtt_us);
        put!(event.retransmitted = last.retransmitted);
        put!(event.vip_port = origin.vip_port);
        put!(event.backend_port = origin.backend_port);
        put!(event.kind = kind);
        put!(event.reason = 0);
        put!(event.vip6 = u8::from(origin.marks & Origin::MARK_VIP6 != 0));
        put!(event.told = origin.told);
    });
}

/// # Safety
///
/// Sixteen bytes at either place, aligned to eight.
#[inline(always)]
unsafe fn copy16(from: *const u64, to: *mut u64) {
    // SAFETY: the caller's promise.
    unsafe {
        core::ptr::write_volatile(to, core::ptr::read_volatile(from));
        core::ptr::write_volatile(to.add(1), core::ptr::read_volatile(from.add(1)));
    }
}

/// A connect that is not redirected: refused here, or left alone.
pub(crate) struct Denied {
    pub(crate) kind: u8,
    pub(crate) route: u32,
    pub(crate) vip6: bool,
    /// The port that the client asked for.
    pub(crate) asked: PortBe,
    /// There was no memory to remember it.
    pub(crate) forgotten: bool,
}

/// Tells it, with who called.
#[inline(always)]
pub(crate) fn denied(denied: &Denied) {
    let how =
        u32::from(denied.kind) | u32::from(denied.vip6) << 8 | u32::from(denied.forgotten) << 9;
    rd_denied(denied.route, u32::from(denied.asked.0), how);
}

/// See [`denied()`]. A global function: the verifier checks it once. `how` is the kind, from bit 8
/// whether the VIP is an IPv6 one, and from bit 9 whether there was no memory.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_denied(route: u32, asked: u32, how: u32) -> u32 {
    if maps::control().events == 0 {
        return 0;
    }
    let asked = PortBe(asked as u16);
    let reason = if how & 1 << 9 != 0 {
        Event::REASON_MEMORY
    } else {
        decide::refusal(&KernelTables, route, asked)
    };
    send(|event| {
        put!(event.at_ns = maps::now_ns());
        put!(event.elapsed_ns = 0);
        put!(event.cgroup = cgroup());
        put!(event.rx_bytes = 0);
        put!(event.tx_bytes = 0);
        // SAFETY: `send` gives room for one event.
        unsafe { copy16([0; 2].as_ptr(), (&raw mut (*event).backend).cast()) };
        // SAFETY: as above.
        command(unsafe { &raw mut (*event).comm });
        put!(event.pid = pid());
        put!(event.route = route);
        put!(event.srtt_us = 0);
        put!(event.retransmitted = 0);
        put!(event.vip_port = asked);
        put!(event.backend_port = PortBe(0));
        put!(event.kind = how as u8);
        put!(event.reason = reason);
        put!(event.vip6 = (how >> 8) as u8 & 1);
        put!(event.told = 1);
    });
    1
}

/// Into the ring, or counted as lost.
#[inline(always)]
fn send(fill: impl FnOnce(*mut Event)) {
    // SAFETY: the helper returns null or as much memory as was asked for, aligned to 8 bytes.
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
