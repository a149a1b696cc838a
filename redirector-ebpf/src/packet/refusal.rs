//! A backend, or the network, refuses a SYN: the SYN goes to another backend, or the guest learns
//! of the refusal.

use aya_ebpf::bindings::__sk_buff;
use redirector_common::packet::flow::{FlowState, MAX_TRIES};

use super::{
    attempt::{self, Failure},
    choose::{self, rd_choose},
    flow_tables as tables, resend,
    scratch::work,
    work::{get, set},
};
use crate::verdict::{CONTINUE, NEXT};

/// The packet refuses the SYN of the flow at `work.key`. [`CONTINUE`]: it is for the guest.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_refused(skb: *mut __sk_buff, failure: u32) -> i32 {
    attempt::rd_attempt_failed(failure);
    let Some(work) = work() else { return NEXT };
    // SAFETY: the key is whole.
    let flow = tables::brief(unsafe { &raw const (*work).key });
    if flow.is_null() {
        return CONTINUE;
    }
    let last = get!(flow.flow.backend_id);
    let client = u32::from(get!(work.key.remote_port.0)) | get!(work.segment.v6) << 16;
    if get!(flow.syn.tries) < MAX_TRIES
        && rd_choose(get!(flow.flow.route), client, last.0) == choose::REDIRECT
        && get!(work.choice.id).0 != last.0
        && get!(work.choice.all_ejected) == 0
    {
        return resend::rd_resend(skb);
    }
    if failure == Failure::Refused as u32 {
        let state: FlowState = get!(flow.flow.state);
        set!(flow.flow.state = state.with(FlowState::RESET));
    }
    CONTINUE
}
