//! A flow is established, or ends: its entries move from one table to the other.

use aya_ebpf::bindings::__sk_buff;
use redirector_common::{
    decide::{self, tcp},
    event::{DenyReason, EventKind},
    packet::flow::{Flow, FlowState},
};

use super::{
    flow_events, flow_tables as tables,
    flow_tables::{Inserted, count},
    rewrite::{self, TCP_CHECK, difference},
    scratch::work,
    skb::{load, store},
    work::{Work, caller, copy_address, copy_flow, get, reverse_key, set},
};
use crate::{
    health, maps, outcome,
    verdict::{CONTINUE, NEXT},
};

/// The backend has accepted the connect of the flow at `work.key`, whose reverse key is
/// `work.other`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_established(skb: *mut __sk_buff) -> i32 {
    let Some(work) = work() else { return NEXT };
    // SAFETY: both keys and the entry are whole.
    let (key, other, entry) =
        unsafe { (&raw const (*work).key, &raw const (*work).other, &raw const (*work).entry) };
    let flow = tables::brief(key).cast::<Flow>();
    if flow.is_null() {
        return CONTINUE;
    }
    let now = maps::now_ns();
    copy_flow(flow, work);
    set!(work.report.elapsed_ns = now.wrapping_sub(get!(flow.started_ns)));
    set!(work.entry.flow.started_ns = now);
    set!(work.entry.flow.seen_ns = maps::heartbeat_ns());
    set!(work.entry.flow.bytes = 0);
    // SAFETY: the context has this field.
    set!(work.entry.flow.origin = unsafe { (*skb).ingress_ifindex });
    let state: FlowState = get!(flow.state);
    set!(work.entry.flow.state = state.with(FlowState::ESTABLISHED));
    match tables::insert_established(key, entry) {
        Inserted::Done => {}
        Inserted::Exists => return CONTINUE,
        Inserted::Full => return rd_table_full(skb),
    }
    write_reverse(work);
    if tables::insert_established(other, entry) == Inserted::Full {
        tables::remove_established(key);
        return rd_table_full(skb);
    }
    tables::remove_brief(key);
    tables::remove_brief(other);
    rd_count_established()
}

/// Turns the forward entry in `work.entry` into the reverse one.
#[inline(always)]
fn write_reverse(work: *mut Work) {
    copy_address!(work.entry.flow.peer = work.key.remote);
    set!(work.entry.flow.peer_port = get!(work.key.remote_port));
    set!(work.entry.flow.guest_port = get!(work.key.guest_port));
}

/// Counts the flow at `work.key`, which has just been established.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_count_established() -> i32 {
    let Some(work) = work() else { return NEXT };
    // A look-up that fails ends the path: the verifier multiplies paths that meet again.
    let flows = tables::interface_flows(work);
    if flows.is_null() {
        return CONTINUE;
    }
    // SAFETY: an element stays mapped while a program runs.
    maps::add(unsafe { &mut (*flows).opened }, 1);
    let window = get!(flows.window_flows);
    set!(flows.window_flows = window - 1);
    let (route, id) = (get!(work.entry.flow.route), get!(work.entry.flow.backend_id));
    let elapsed = get!(work.report.elapsed_ns);
    let caller = caller(work, get!(work.other.remote_port));
    // The end of a flow shows whether it was served.
    let _ = health::record_success(id, caller, get!(work.entry.flow.started_ns));
    let Some(stats) = maps::route_stats(route) else { return CONTINUE };
    // Also one that was counted as a failure: it has begun once more.
    maps::add(&mut stats.started, 1);
    maps::add(&mut stats.established, 1);
    maps::add(&mut stats.connect_ns, elapsed);
    let Some(stats) = maps::backend_stats(id) else { return CONTINUE };
    maps::add(&mut stats.started, 1);
    maps::add(&mut stats.established, 1);
    rd_count_latency(route, elapsed as u32, (elapsed >> 32) as u32);
    let Some(times) = maps::backend_times(id) else { return CONTINUE };
    maps::add(&mut times.connect_ns, elapsed);
    // The entry is the reverse one by now; an event has the forward one's peer.
    copy_address!(work.entry.flow.peer = work.other.remote);
    set!(work.entry.flow.peer_port = get!(work.other.remote_port));
    flow_events::rd_flow_event(EventKind::Established as u32);
    CONTINUE
}

/// Counts the latency of route `index`, whose lower and upper half is given. A function of its own:
/// the offset of a histogram's bucket keeps the verifier from pruning its caller's states ("BPF
/// program is too large", 6.18).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_count_latency(index: u32, lower: u32, upper: u32) -> i32 {
    if let Some(times) = maps::route_times(index) {
        maps::count_latency(times, u64::from(lower) | u64::from(upper) << 32);
    }
    CONTINUE
}

/// The table of established flows is full: the guest gets a reset, and answers what else the
/// backend sends with one of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_table_full(skb: *mut __sk_buff) -> i32 {
    let Some(work) = work() else { return NEXT };
    // SAFETY: the key is whole.
    let flow = tables::brief(unsafe { &raw const (*work).key }).cast::<Flow>();
    if flow.is_null() {
        return NEXT;
    }
    count(|stats| &mut stats.flows_full);
    tables::count_refused(tables::interface_flows(work));
    let Some(stats) = maps::route_stats(get!(flow.route)) else { return NEXT };
    maps::add(&mut stats.started, 1);
    maps::add(&mut stats.aborted, 1);
    let Some(stats) = maps::backend_stats(get!(flow.backend_id)) else { return NEXT };
    maps::add(&mut stats.started, 1);
    maps::add(&mut stats.aborted, 1);
    let state: FlowState = get!(flow.state);
    set!(flow.state = state.with(FlowState::RESET | FlowState::FAILED));
    set!(work.segment.index = get!(flow.route));
    flow_events::rd_flow_denied(EventKind::Denied as u32, DenyReason::NoMemory as u32);
    make_reset(skb, work)
}

/// Turns a SYN-ACK into a reset that acknowledges the same SYN.
#[inline(always)]
fn make_reset(skb: *mut __sk_buff, work: *mut Work) -> i32 {
    let at = get!(work.segment.at);
    let Some(word) = load::<u64>(skb, at + 8) else { return NEXT };
    let reset = word & !(0xff << 40) | u64::from(tcp::RST | tcp::ACK) << 40;
    let change = difference((word >> 32) as u32 & 0xffff, (reset >> 32) as u32 & 0xffff);
    rewrite::add(skb, at + TCP_CHECK, rewrite::fold32(change), 0);
    store(skb, at + 8, &reset, 8);
    CONTINUE
}

/// The flow at `work.key` has ended.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_ended() -> i32 {
    let Some(work) = work() else { return NEXT };
    // SAFETY: both keys and the entry are whole.
    let (key, other, entry) =
        unsafe { (&raw const (*work).key, &raw const (*work).other, &raw const (*work).entry) };
    let flow = tables::established(key);
    if flow.is_null() {
        return NEXT;
    }
    reverse_key(work, flow);
    set!(work.report.rx_bytes = 0);
    let reverse = tables::established(other);
    if !reverse.is_null() {
        set!(work.report.rx_bytes = get!(reverse.bytes));
        copy_flow(reverse, work);
        set!(work.entry.flow.state = get!(flow.state));
        tables::put_brief(other, entry);
        tables::remove_established(other);
    }
    set!(work.report.tx_bytes = get!(flow.bytes));
    set!(work.report.elapsed_ns = maps::now_ns().wrapping_sub(get!(flow.started_ns)));
    copy_flow(flow, work);
    tables::put_brief(key, entry);
    // Only one of two concurrent ends removes the entry, and counts.
    if tables::remove_established(key) {
        rd_count_ended();
        rd_judge_end();
    }
    CONTINUE
}

/// The guest repeats a SYN or the last FIN of the flow at `work.key`. Its reverse entry is as old,
/// and a flood of others may have dropped it: the answer needs it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_repeated() -> i32 {
    let Some(work) = work() else { return NEXT };
    // SAFETY: both keys and the entry are whole.
    let (key, other, entry) =
        unsafe { (&raw const (*work).key, &raw const (*work).other, &raw const (*work).entry) };
    let flow = tables::brief(key).cast::<Flow>();
    if flow.is_null() {
        return CONTINUE;
    }
    reverse_key(work, flow);
    // The look-up makes the entry a younger one.
    if tables::brief(other).is_null() {
        copy_flow(flow, work);
        write_reverse(work);
        tables::insert_brief(other, entry);
    }
    CONTINUE
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_count_ended() -> i32 {
    let Some(work) = work() else { return NEXT };
    let flows = tables::interface_flows(work);
    if flows.is_null() {
        return CONTINUE;
    }
    // SAFETY: an element stays mapped while a program runs.
    maps::add(unsafe { &mut (*flows).closed }, 1);
    let Some(stats) = maps::route_stats(get!(work.entry.flow.route)) else { return CONTINUE };
    maps::add(&mut stats.closed, 1);
    maps::add(&mut stats.rx_bytes, get!(work.report.rx_bytes));
    maps::add(&mut stats.tx_bytes, get!(work.report.tx_bytes));
    let Some(stats) = maps::backend_stats(get!(work.entry.flow.backend_id)) else {
        return CONTINUE;
    };
    maps::add(&mut stats.closed, 1);
    CONTINUE
}

/// What the end of the flow in `work.entry` shows about its backend.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_judge_end() -> i32 {
    let Some(work) = work() else { return NEXT };
    let state: FlowState = get!(work.entry.flow.state);
    let id = get!(work.entry.flow.backend_id);
    let caller = caller(work, get!(work.entry.flow.peer_port));
    let (received, sent) = (get!(work.report.rx_bytes), get!(work.report.tx_bytes) != 0);
    if state.is_backend_reset()
        && decide::is_early_reset(received, sent, get!(work.report.elapsed_ns))
    {
        outcome::record_reset(get!(work.entry.flow.route), id, caller);
        flow_events::rd_flow_failed(EventKind::Reset as u32);
        return CONTINUE;
    }
    if received != 0 {
        health::record_service(id, caller);
    }
    flow_events::rd_flow_event(EventKind::Closed as u32);
    CONTINUE
}
