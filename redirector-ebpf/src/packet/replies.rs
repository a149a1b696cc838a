//! TCP of backends to a guest.

use aya_ebpf::bindings::__sk_buff;
use redirector_common::{
    decide::{self, Reply, tcp},
    packet::flow::{Flow, FlowKey, FlowState},
};

use super::{
    attempt::Failure,
    finish, flow_tables as tables,
    guest::take_target,
    refusal,
    rewrite::{rd_translate4, rd_translate6},
    scratch::work,
    segment::{FROM_BACKEND, rd_read4, rd_read6},
    syn,
    work::{Work, address, copy_address, copy_key, get, set},
};
use crate::verdict::{CONTINUE, NEXT};

/// An IPv4 segment of an address that may be a backend's.
#[inline(always)]
pub(crate) fn reply4(skb: *mut __sk_buff) -> i32 {
    if rd_read4(skb, FROM_BACKEND) == 0 {
        return NEXT;
    }
    match rd_restore(skb) {
        CONTINUE => rd_translate4(skb, FROM_BACKEND),
        verdict => verdict,
    }
}

/// An IPv6 segment of an address that may be a backend's.
#[inline(always)]
pub(crate) fn reply6(skb: *mut __sk_buff) -> i32 {
    if rd_read6(skb, FROM_BACKEND) == 0 {
        return NEXT;
    }
    match rd_restore(skb) {
        CONTINUE => rd_translate6(skb, FROM_BACKEND),
        verdict => verdict,
    }
}

/// Finds the segment's flow. [`CONTINUE`]: the segment comes from `work.target`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_restore(skb: *mut __sk_buff) -> i32 {
    let Some(work) = work() else { return NEXT };
    // SAFETY: the key is whole.
    let key = unsafe { &raw const (*work).key };
    let flow = tables::established(key);
    if flow.is_null() {
        let flow = tables::brief(key);
        if flow.is_null() {
            return NEXT;
        }
        take_target(work, flow.cast());
        return rd_judge(skb);
    }
    take_target(work, flow);
    if get!(work.segment.flags) & (tcp::SYN | tcp::FIN | tcp::RST) != 0 {
        return rd_judge(skb);
    }
    CONTINUE
}

/// Does what a segment means for the flow whose reverse key is `work.key` and whose VIP is
/// `work.target`. Meanwhile `work.key` is the forward key, and `work.other` the reverse one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_judge(skb: *mut __sk_buff) -> i32 {
    let Some(work) = work() else { return NEXT };
    to_forward(work);
    let verdict = judge(skb);
    to_reverse(work);
    verdict
}

/// Makes `work.key` the forward key and `work.other` the reverse one.
#[inline(always)]
pub(crate) fn to_forward(work: *mut Work) {
    // SAFETY: both keys are whole.
    unsafe { copy_key(&raw const (*work).key, &raw mut (*work).other) };
    copy_address!(work.key.remote = work.target.peer);
    set!(work.key.remote_port = get!(work.target.peer_port));
    set!(work.key.guest_port = get!(work.target.guest_port));
    set!(work.key.direction = FlowKey::FORWARD);
}

/// The inverse of [`to_forward`].
#[inline(always)]
pub(crate) fn to_reverse(work: *mut Work) {
    // SAFETY: both keys are whole.
    unsafe { copy_key(&raw const (*work).other, &raw mut (*work).key) };
}

#[inline(always)]
fn judge(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context has this field.
    match rd_meaning(unsafe { (*skb).ingress_ifindex }) {
        TRANSLATE => CONTINUE,
        ESTABLISH => finish::rd_established(skb),
        REFUSE => refusal::rd_refused(skb, Failure::Refused as u32),
        FINISH => rd_reply_end(FlowState::BACKEND_FIN),
        RESET => rd_reply_end(FlowState::RESET | FlowState::BACKEND_RESET),
        STALE => {
            syn::rd_forget();
            NEXT
        }
        _ => NEXT,
    }
}

const TRANSLATE: u32 = Reply::Translate as u32;
const ESTABLISH: u32 = Reply::Establish as u32;
const REFUSE: u32 = Reply::Refuse as u32;
const FINISH: u32 = Reply::Finish as u32;
const RESET: u32 = Reply::Reset as u32;
const STALE: u32 = Reply::Stale as u32;

/// The number of the [`Reply`] that the segment is for the flow at `work.key`; it came in by the
/// interface `origin`. A function of its own, as is what follows from it: the decision has many
/// paths, and the verifier would follow each of them through the rest.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_meaning(origin: u32) -> u32 {
    let Some(work) = work() else { return Reply::Foreign as u32 };
    let flow = own_flow(work);
    if flow.is_null() {
        return Reply::Foreign as u32;
    }
    let acknowledged = get!(work.segment.acknowledgment).wrapping_sub(get!(flow.initial_sequence));
    let same_origin = get!(flow.origin) == origin;
    decide::reply(get!(flow.state), get!(work.segment.flags), (acknowledged, same_origin)) as u32
}

/// The segment adds these flags to the state of the flow at `work.key`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_reply_end(added: u32) -> i32 {
    let Some(work) = work() else { return NEXT };
    // SAFETY: the key is whole.
    let flow = tables::any(unsafe { &raw const (*work).key });
    if flow.is_null() {
        return NEXT;
    }
    let state: FlowState = get!(flow.state);
    set!(flow.state = state.with(added));
    if state.with(added).is_ended() && !state.is_ended() {
        finish::rd_ended();
    }
    CONTINUE
}

/// The flow at `work.key`, if its reverse key is `work.other`. A reverse entry that no flow has any
/// more is removed.
#[inline(always)]
pub(crate) fn own_flow(work: *mut Work) -> *mut Flow {
    // SAFETY: both keys are whole.
    let (key, other) = unsafe { (&raw const (*work).key, &raw const (*work).other) };
    let flow = tables::any(key);
    if !flow.is_null() {
        let same_ports = get!(flow.peer_port.0) == get!(work.other.remote_port.0)
            && get!(flow.guest_port.0) == get!(work.other.guest_port.0);
        if same_ports && address!(flow.peer) == address!(work.other.remote) {
            return flow;
        }
    }
    if !tables::remove_brief(other) {
        tables::remove_established(other);
    }
    core::ptr::null_mut()
}
