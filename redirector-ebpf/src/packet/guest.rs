//! TCP of a guest to the pool.

use aya_ebpf::bindings::__sk_buff;
use redirector_common::{
    decide::{self, tcp},
    packet::flow::{Flow, FlowState},
};

use super::{
    finish, flow_tables as tables, reset,
    rewrite::{rd_translate4, rd_translate6},
    scratch::work,
    segment::{FROM_GUEST, rd_read4, rd_read6},
    syn,
    work::{Work, copy_address, get, set},
};
use crate::{
    maps, pools,
    verdict::{CONTINUE, NEXT},
};

/// An IPv4 segment to the pool.
#[inline(always)]
pub(crate) fn guest4(skb: *mut __sk_buff) -> i32 {
    let Some(work) = work() else { return NEXT };
    if rd_read4(skb, FROM_GUEST) == 0 {
        return NEXT;
    }
    let address = redirector_common::addr::Ip4Be(get!(work.key.remote.0[3]));
    let Some(index) = pools::pool4().index(address) else { return NEXT };
    set!(work.segment.index = index);
    match rd_redirect(skb) {
        CONTINUE => rd_translate4(skb, FROM_GUEST),
        verdict => verdict,
    }
}

/// An IPv6 segment to the pool.
#[inline(always)]
pub(crate) fn guest6(skb: *mut __sk_buff) -> i32 {
    let Some(work) = work() else { return NEXT };
    if rd_read6(skb, FROM_GUEST) == 0 {
        return NEXT;
    }
    let Some(index) = pools::pool6().and_then(|pool| pool.index(get!(work.key.remote))) else {
        return NEXT;
    };
    set!(work.segment.index = index);
    match rd_redirect(skb) {
        CONTINUE => rd_translate6(skb, FROM_GUEST),
        verdict => verdict,
    }
}

/// Finds the segment's flow, or makes one. [`CONTINUE`]: the segment goes to `work.target`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_redirect(skb: *mut __sk_buff) -> i32 {
    let Some(work) = work() else { return NEXT };
    let flags = get!(work.segment.flags);
    if flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN {
        let verdict = syn::rd_syn(skb);
        if verdict != CONTINUE {
            return verdict;
        }
    }
    // SAFETY: the key is whole.
    let key = unsafe { &raw const (*work).key };
    let flow = tables::any(key);
    if flow.is_null() {
        return rd_stray(skb);
    }
    take_target(work, flow);
    if flags & (tcp::FIN | tcp::RST) != 0 {
        rd_guest_end();
    }
    CONTINUE
}

/// Counts a segment of a flow, and copies what it is replaced by.
#[inline(always)]
pub(crate) fn take_target(work: *mut Work, flow: *mut Flow) {
    copy_address!(work.target.peer = flow.peer);
    set!(work.target.peer_port = get!(flow.peer_port));
    set!(work.target.guest_port = get!(flow.guest_port));
    set!(flow.seen_ns = maps::heartbeat_ns());
    // SAFETY: an element stays mapped while a program runs.
    maps::add(unsafe { &mut (*flow).bytes }, u64::from(get!(work.segment.payload)));
}

/// A segment without a flow: a connection that is older than the tables, or that was passed.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_stray(skb: *mut __sk_buff) -> i32 {
    let Some(work) = work() else { return NEXT };
    if !is_redirected(skb) || syn::passes(get!(work.segment.index)) {
        return NEXT;
    }
    reset::rd_reset(skb)
}

/// Whether TCP of the packet's interface is redirected.
#[inline(always)]
pub(crate) fn is_redirected(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context has this field.
    let interface = tables::interface(unsafe { (*skb).ifindex });
    !interface.is_null()
        && get!(interface.flags) & redirector_common::packet::interface::Interface::FLAG_REDIRECTS
            != 0
}

/// A guest's FIN or RST, whose flow's key is `work.key`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_guest_end() -> i32 {
    let Some(work) = work() else { return NEXT };
    // SAFETY: the key is whole.
    let flow = tables::any(unsafe { &raw const (*work).key });
    if flow.is_null() {
        return NEXT;
    }
    let state: FlowState = get!(flow.state);
    let offset = get!(work.segment.sequence).wrapping_sub(get!(flow.initial_sequence));
    let ended = state.with(decide::guest_segment(state, get!(work.segment.flags), offset));
    if ended == state {
        return finish::rd_repeated();
    }
    set!(flow.state = ended);
    if ended.is_ended() && !state.is_ended() {
        return finish::rd_ended();
    }
    NEXT
}
