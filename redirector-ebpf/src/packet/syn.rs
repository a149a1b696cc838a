//! The SYN of a guest: the flow that it belongs to, or a new one, or the same flow at another
//! backend.

use aya_ebpf::bindings::__sk_buff;
use redirector_common::{
    addr::PortBe,
    backend::BackendId,
    decide::{self, GuestSyn, Tables},
    event::{DenyReason, EventKind},
    packet::{
        flow::{BriefFlow, FlowState, MAX_TRIES, MAX_WINDOW_FLOWS},
        flow::{MAX_INTERFACE_FLOWS, WINDOW_NS},
        interface::Interface,
    },
    sampling::scramble,
};

use super::{
    attempt::{self, Failure},
    choose::{self, rd_choose},
    claim, finish,
    first_syn::rd_first_syn,
    flow_events, flow_tables as tables,
    flow_tables::count,
    reset,
    scratch::work,
    work::{Work, caller, copy_address, get, reverse_key, set},
};
use crate::{
    health, maps, opaque,
    tables::KernelTables,
    verdict::{CONTINUE, NEXT},
};

/// A SYN, whose flow's key is `work.key`. [`CONTINUE`]: it has a flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_syn(skb: *mut __sk_buff) -> i32 {
    let Some(work) = work() else { return NEXT };
    // SAFETY: the key is whole.
    let key = unsafe { &raw const (*work).key };
    let flow = tables::any(key);
    if flow.is_null() {
        return rd_new_flow(skb, BackendId::NONE.0, 0);
    }
    let same = get!(work.segment.sequence) == get!(flow.initial_sequence);
    let waited = maps::now_ns().wrapping_sub(get!(flow.started_ns));
    let state: FlowState = get!(flow.state);
    match decide::guest_syn(state, same, waited, maps::control().syn_wait_ms.into()) {
        GuestSyn::Again => finish::rd_repeated(),
        GuestSyn::New => {
            replace(state);
            rd_new_flow(skb, BackendId::NONE.0, 0)
        }
        GuestSyn::Move => {
            // Only a half-open flow moves, and these are in the second table.
            let brief = flow.cast::<BriefFlow>();
            rd_move(skb, get!(brief.flow.backend_id).0)
        }
    }
}

/// Ends the flow whose addresses and ports a new connection has.
#[inline(always)]
fn replace(state: FlowState) {
    if state.is_half_open() {
        attempt::rd_attempt_failed(Failure::Aborted as u32);
    } else if !state.is_ended() {
        finish::rd_ended();
    }
    rd_forget();
}

/// Removes the reverse entry of the flow at `work.key`, and its forward one.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_forget() -> i32 {
    let Some(work) = work() else { return NEXT };
    // SAFETY: the key is whole.
    let key = unsafe { &raw const (*work).key };
    let flow = tables::brief(key);
    if flow.is_null() {
        return NEXT;
    }
    reverse_key(work, flow.cast());
    // SAFETY: as above.
    tables::remove_brief(unsafe { &raw const (*work).other });
    tables::remove_brief(key);
    CONTINUE
}

/// The SYN of a flow whose backend has refused it or not answered; `last` is that backend. Without
/// another one it is sent to the same again.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_move(skb: *mut __sk_buff, last: u32) -> i32 {
    let Some(work) = work() else { return NEXT };
    attempt::rd_attempt_failed(Failure::TimedOut as u32);
    if choose_for(work, last) != choose::REDIRECT
        || get!(work.choice.id).0 == last
        || get!(work.choice.all_ejected) != 0
    {
        return finish::rd_repeated();
    }
    // SAFETY: the key is whole.
    let flow = tables::brief(unsafe { &raw const (*work).key });
    if flow.is_null() {
        return CONTINUE;
    }
    let tries = get!(flow.syn.tries) + 1;
    if tries > MAX_TRIES {
        return CONTINUE;
    }
    rd_forget();
    count(|stats| &mut stats.flows_moved);
    rd_begin(skb, tries)
}

#[inline(always)]
fn choose_for(work: *mut Work, last: u32) -> u32 {
    let client = u32::from(get!(work.key.remote_port.0)) | get!(work.segment.v6) << 16;
    rd_choose(get!(work.segment.index), client, last)
}

/// A new flow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_new_flow(skb: *mut __sk_buff, last: u32, tries: u32) -> i32 {
    let Some(work) = work() else { return NEXT };
    let index = get!(work.key.interface);
    let interface = tables::interface(index);
    if interface.is_null() || get!(interface.flags) & Interface::FLAG_REDIRECTS == 0 {
        return NEXT;
    }
    let verdict = choose_for(work, last);
    if verdict == choose::PASS {
        flow_events::rd_flow_denied(EventKind::Passed as u32, 0);
        return NEXT;
    }
    if verdict != choose::REDIRECT {
        flow_events::rd_flow_denied(EventKind::Denied as u32, 0);
        return reset::rd_reset(skb);
    }
    if !is_admitted(work, get!(interface.expired)) {
        count(|stats| &mut stats.interface_over_limit);
        flow_events::rd_flow_denied(EventKind::Denied as u32, DenyReason::TooManyFlows as u32);
        return reset::rd_reset(skb);
    }
    rd_begin(skb, tries)
}

/// Whether an interface may have one more flow, which is counted.
#[inline(always)]
fn is_admitted(work: *mut Work, expired: u64) -> bool {
    let flows = tables::interface_flows(work);
    if flows.is_null() {
        return false;
    }
    let open = get!(flows.opened).wrapping_sub(get!(flows.closed)).wrapping_sub(expired);
    // A negative number is one that the agent's removals have outrun.
    if open as i64 >= MAX_INTERFACE_FLOWS as i64 {
        tables::count_refused(flows);
        return false;
    }
    let now = maps::now_ns();
    if now.wrapping_sub(get!(flows.window_ns)) > WINDOW_NS {
        set!(flows.window_ns = now);
        set!(flows.window_flows = 1);
        return true;
    }
    let count = get!(flows.window_flows) + 1;
    set!(flows.window_flows = count);
    if count > MAX_WINDOW_FLOWS {
        tables::count_refused(flows);
        return false;
    }
    true
}

/// Begins a flow to `work.choice`, for the SYN at `work.key`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_begin(skb: *mut __sk_buff, tries: u32) -> i32 {
    let Some(work) = work() else { return NEXT };
    let id: BackendId = get!(work.choice.id);
    let route = get!(work.segment.index);
    let sampling = match maps::control().sampling {
        sampling if sampling.level() > 1 => sampling.draw(scramble(KernelTables.connects(route))),
        sampling => sampling,
    };
    let established = maps::backend_stats(id).map_or(0, |stats| stats.established as u32);
    set!(work.entry.flow.initial_sequence = get!(work.segment.sequence));
    set!(work.entry.flow.route = route);
    set!(work.entry.flow.backend_id = id);
    set!(work.entry.flow.started_ns = maps::now_ns());
    set!(work.entry.flow.seen_ns = 0);
    set!(work.entry.flow.bytes = 0);
    set!(
        work.entry.flow.state =
            FlowState(u32::from(sampling.level()) << 8 | get!(work.segment.payload) << 16)
    );
    set!(work.entry.flow.origin = established);
    set!(work.entry.syn.tries = tries);
    if !write_entries(skb, work) {
        count(|stats| &mut stats.flows_full);
        tables::count_refused(tables::interface_flows(work));
        flow_events::rd_flow_denied(EventKind::Denied as u32, DenyReason::NoMemory as u32);
        return reset::rd_reset(skb);
    }
    rd_count_start()
}

/// Writes both entries of a flow; false if there is no room for them.
#[inline(always)]
fn write_entries(skb: *mut __sk_buff, work: *mut Work) -> bool {
    if !claim_port(work) {
        return false;
    }
    rd_first_syn(skb);
    copy_address!(work.entry.flow.peer = work.choice.address);
    set!(work.entry.flow.peer_port = get!(work.choice.port));
    set!(work.entry.flow.guest_port = get!(work.other.guest_port));
    // SAFETY: key and entry are whole.
    let (key, entry) = unsafe { (&raw const (*work).key, &raw const (*work).entry) };
    tables::put_brief(key, entry)
}

/// Writes the reverse entry, under the guest's own port or another one.
#[inline(always)]
fn claim_port(work: *mut Work) -> bool {
    let own: PortBe = get!(work.key.guest_port);
    let mut result = claim::rd_claim(u32::from(own.0));
    if result == claim::TAKEN {
        count(|stats| &mut stats.ports_translated);
        result = claim::rd_claim_spare();
    }
    result == claim::DONE
}

/// Notes a SYN to `work.choice`. It counts as started with its outcome: a flood may drop the flow
/// before, and a guest that gives up says nothing.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_count_start() -> i32 {
    let Some(work) = work() else { return CONTINUE };
    let id: BackendId = get!(work.choice.id);
    let Some(stats) = maps::route_stats(get!(work.segment.index)) else { return CONTINUE };
    let all_ejected = opaque::number(u64::from(get!(work.choice.all_ejected)));
    maps::add(&mut stats.all_ejected, all_ejected);
    if get!(work.choice.is_trial) != 0 {
        health::start_trial(id, caller(work, get!(work.choice.port)));
    }
    CONTINUE
}

/// Whether the route at `index` leaves connects without a backend alone.
#[inline(always)]
pub(crate) fn passes(index: u32) -> bool {
    let entry = KernelTables.route(index);
    entry.is_present() && entry.passes()
}
