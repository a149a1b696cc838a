//! Claims the reverse key of a new flow. It is taken if the guest has a flow from the same port to
//! the same backend, through another VIP; the guest's port is then translated.

use redirector_common::{
    decide::{Tables, spare_port},
    packet::flow::{Flow, FlowKey, FlowState},
};

use super::{
    flow_tables::{self as tables, Inserted},
    scratch::work,
    work::{Work, address, copy_address, get, set},
};
use crate::tables::KernelTables;

/// The reverse entry is written, under `work.other`.
pub(crate) const DONE: u32 = 0;
/// Another flow has the key.
pub(crate) const TAKEN: u32 = 1;
/// There is no memory.
pub(crate) const FULL: u32 = 2;

/// Claims the key with the guest's `port`, in network order, for the flow from `work.key` to
/// `work.choice`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_claim(port: u32) -> u32 {
    let Some(work) = work() else { return FULL };
    write_entry(work, port as u16);
    // SAFETY: key and entry are whole.
    let (key, entry) = unsafe { (&raw const (*work).other, &raw const (*work).entry) };
    if !tables::established(key).is_null() {
        return TAKEN;
    }
    match tables::insert_brief(key, entry) {
        Inserted::Done => return DONE,
        Inserted::Full => return FULL,
        Inserted::Exists => {}
    }
    let older = tables::brief(key);
    if !older.is_null() && !is_free(work, older.cast()) {
        return TAKEN;
    }
    if tables::put_brief(key, entry) { DONE } else { FULL }
}

/// Whether an older flow's reverse entry may be replaced: it was reset, or is of the same
/// connection.
#[inline(always)]
fn is_free(work: *mut Work, older: *const Flow) -> bool {
    let state: FlowState = get!(older.state);
    state.has(FlowState::RESET)
        || address!(older.peer) == address!(work.key.remote)
            && get!(older.peer_port.0) == get!(work.key.remote_port.0)
            && get!(older.guest_port.0) == get!(work.key.guest_port.0)
}

#[inline(always)]
fn write_entry(work: *mut Work, port: u16) {
    copy_address!(work.other.guest = work.key.guest);
    copy_address!(work.other.remote = work.choice.address);
    set!(work.other.guest_port.0 = port);
    set!(work.other.remote_port = get!(work.choice.port));
    set!(work.other.interface = get!(work.key.interface));
    set!(work.other.vlan = get!(work.key.vlan));
    set!(work.other.direction = FlowKey::REVERSE);
    copy_address!(work.entry.flow.peer = work.key.remote);
    set!(work.entry.flow.peer_port = get!(work.key.remote_port));
    set!(work.entry.flow.guest_port = get!(work.key.guest_port));
}

/// Claims the key with one of four random ports.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_claim_spare() -> u32 {
    let mut result = claim_random();
    if result == TAKEN {
        result = claim_random();
    }
    if result == TAKEN {
        result = claim_random();
    }
    if result == TAKEN {
        result = claim_random();
    }
    result
}

#[inline(always)]
fn claim_random() -> u32 {
    rd_claim(u32::from(spare_port(KernelTables.random()).0))
}
