//! Events of guests' flows. A guest has no process and no cgroup: its event has the index of its
//! interface.

use aya_ebpf::helpers::generated::{bpf_ringbuf_reserve, bpf_ringbuf_submit};
use redirector_common::{
    addr::PortBe,
    decide,
    event::{Event, EventKind},
    event_budget,
    sampling::Sampling,
};

use super::{
    scratch::work,
    work::{Work, address, get, set},
};
use crate::{maps, tables::KernelTables};

/// Writes one field in one store: see [`crate::events`].
macro_rules! put {
    ($event:ident.$field:ident = $value:expr) => {{
        let value = $value;
        // SAFETY: room for one event is reserved.
        unsafe { core::ptr::write_volatile(&raw mut (*$event).$field, value) }
    }};
}

/// What differs between the kinds of events.
struct Details {
    kind: u8,
    reason: u8,
    sampling: Sampling,
    route: u32,
    backend: [u64; 2],
    backend_port: PortBe,
}

/// The flow in `work.entry`, whose key is `work.key`, was established or has ended; `kind`: an
/// [`EventKind`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_flow_event(kind: u32) -> u32 {
    let Some(work) = work() else { return 0 };
    if !sampling(work).reports_success() {
        return 0;
    }
    if kind == EventKind::Established as u32 {
        set!(work.report.rx_bytes = 0);
        set!(work.report.tx_bytes = 0);
    }
    if maps::admit_success() {
        emit(work, &of_flow(work, kind));
    }
    1
}

/// A backend did not accept the flow in `work.entry`, or has reset it; `kind`: an [`EventKind`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_flow_failed(kind: u32) -> u32 {
    let Some(work) = work() else { return 0 };
    if sampling(work).is_off() {
        return 0;
    }
    if kind != EventKind::Reset as u32 {
        set!(work.report.rx_bytes = 0);
        set!(work.report.tx_bytes = 0);
    }
    let sampling = admit_failure(work);
    if sampling.is_off() {
        return 0;
    }
    emit(work, &Details { sampling, ..of_flow(work, kind) });
    1
}

/// How a failure of the guest at `work.key` is reported.
#[inline(always)]
fn admit_failure(work: *mut Work) -> Sampling {
    maps::admit_failure(event_budget::guest(get!(work.key.interface)), maps::now_ns())
}

#[inline(always)]
fn sampling(work: *mut Work) -> Sampling {
    Sampling::from_bits((get!(work.entry.flow.state.0) >> 8) as u8)
}

#[inline(always)]
fn of_flow(work: *mut Work, kind: u32) -> Details {
    Details {
        kind: kind as u8,
        reason: 0,
        sampling: sampling(work),
        route: get!(work.entry.flow.route),
        backend: address!(work.entry.flow.peer),
        backend_port: get!(work.entry.flow.peer_port),
    }
}

/// The SYN at `work.key` was refused here or left alone: counts it, and reports it. `kind`: an
/// [`EventKind`]; `reason`: a
/// [`DenyReason`](redirector_common::event::DenyReason), or 0 if the route's entry shows it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_flow_denied(kind: u32, reason: u32) -> u32 {
    let Some(work) = work() else { return 0 };
    let route = get!(work.segment.index);
    if let Some(stats) = maps::route_stats(route) {
        let passed = kind == EventKind::Passed as u32;
        maps::add(&mut stats.passed, crate::opaque::number(u64::from(passed)));
        maps::add(&mut stats.denied, crate::opaque::number(u64::from(!passed)));
    }
    if maps::control().sampling.is_off() {
        return 0;
    }
    let sampling = admit_failure(work);
    if sampling.is_off() {
        return 0;
    }
    let reason = if reason == 0 {
        rd_deny_reason(route, u32::from(get!(work.key.remote_port.0)))
    } else {
        reason
    };
    set!(work.report.elapsed_ns = 0);
    set!(work.report.rx_bytes = 0);
    set!(work.report.tx_bytes = 0);
    emit(
        work,
        &Details {
            kind: kind as u8,
            reason: reason as u8,
            sampling,
            route,
            backend: [0, 0],
            backend_port: PortBe(0),
        },
    );
    1
}

/// See [`decide::deny_reason`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_deny_reason(route: u32, port: u32) -> u32 {
    decide::deny_reason(&KernelTables, route, PortBe(port as u16)) as u32
}

#[inline(always)]
fn emit(work: *mut Work, details: &Details) {
    // SAFETY: the helper returns null or as much memory as requested, aligned to 8 bytes.
    let event =
        unsafe { bpf_ringbuf_reserve(maps::ring(), size_of::<Event>() as u64, 0) }.cast::<Event>();
    if event.is_null() {
        maps::count_lost();
        return;
    }
    // SAFETY: room for one event is reserved; both fields have 16 bytes, aligned to 8.
    unsafe {
        let backend = (&raw mut (*event).backend).cast::<u64>();
        core::ptr::write_volatile(backend, details.backend[0]);
        core::ptr::write_volatile(backend.add(1), details.backend[1]);
        let command = (&raw mut (*event).comm).cast::<u64>();
        core::ptr::write_volatile(command, 0);
        core::ptr::write_volatile(command.add(1), 0);
    }
    put!(event.at_ns = maps::now_ns());
    put!(event.elapsed_ns = get!(work.report.elapsed_ns));
    put!(event.cgroup = u64::from(get!(work.key.interface)));
    put!(event.rx_bytes = get!(work.report.rx_bytes));
    put!(event.tx_bytes = get!(work.report.tx_bytes));
    put!(event.pid = 0);
    put!(event.route = details.route);
    put!(event.srtt_us = 0);
    put!(event.retransmitted = 0);
    put!(event.vip_port = get!(work.key.remote_port));
    put!(event.backend_port = details.backend_port);
    put!(event.kind = details.kind);
    put!(event.reason = details.reason);
    put!(event.client = Event::CLIENT_GUEST | get!(work.segment.v6) as u8 & Event::CLIENT_VIP6);
    put!(event.sampling = details.sampling);
    // SAFETY: the memory was reserved above, and is submitted once.
    unsafe { bpf_ringbuf_submit(event.cast(), 0) };
}
