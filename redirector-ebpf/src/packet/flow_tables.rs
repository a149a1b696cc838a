//! The tables of flows: entries are found, written and removed by keys in [`Work`].
//!
//! An established flow is found in the first table, every other one in the second.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::generated::{bpf_map_delete_elem, bpf_map_lookup_elem, bpf_map_update_elem},
};
use redirector_common::packet::{
    flow::{BriefFlow, Flow, FlowKey},
    interface::{Interface, InterfaceFlows},
    stats::PacketStats,
};

use super::{
    maps::{RD_BRIEF_FLOWS, RD_FLOWS, RD_IF_FLOWS, RD_INTERFACES, RD_PACKET_STATS},
    work::{Work, get},
};
use crate::maps;

const EEXIST: i32 = -17;

/// The outcome of an insertion.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    Done,
    Exists,
    Full,
}

#[inline(always)]
fn established_table() -> *mut c_void {
    (&raw const RD_FLOWS).cast_mut().cast()
}

#[inline(always)]
fn brief_table() -> *mut c_void {
    (&raw const RD_BRIEF_FLOWS).cast_mut().cast()
}

/// The entry of an established flow; null if there is none.
#[inline(always)]
pub(crate) fn established(key: *const FlowKey) -> *mut Flow {
    // SAFETY: the key is whole; the helper returns null or an element.
    unsafe { bpf_map_lookup_elem(established_table(), key.cast_mut().cast()).cast() }
}

/// The entry of a half-open or ended flow; null if there is none.
#[inline(always)]
pub(crate) fn brief(key: *const FlowKey) -> *mut BriefFlow {
    // SAFETY: as above.
    unsafe { bpf_map_lookup_elem(brief_table(), key.cast_mut().cast()).cast() }
}

/// The entry of a flow in either table; null if there is none.
#[inline(always)]
pub(crate) fn any(key: *const FlowKey) -> *mut Flow {
    let flow = established(key);
    if flow.is_null() { brief(key).cast() } else { flow }
}

#[inline(always)]
pub(crate) fn insert_established(key: *const FlowKey, entry: *const BriefFlow) -> Inserted {
    insert(established_table(), key, entry, BPF_NOEXIST)
}

#[inline(always)]
pub(crate) fn insert_brief(key: *const FlowKey, entry: *const BriefFlow) -> Inserted {
    insert(brief_table(), key, entry, BPF_NOEXIST)
}

#[inline(always)]
pub(crate) fn put_brief(key: *const FlowKey, entry: *const BriefFlow) -> bool {
    insert(brief_table(), key, entry, BPF_ANY) == Inserted::Done
}

/// The result is compared as an `i32`: before 6.4 the helper leaves the upper half undefined.
#[inline(always)]
fn insert(
    table: *mut c_void,
    key: *const FlowKey,
    entry: *const BriefFlow,
    flags: u32,
) -> Inserted {
    // SAFETY: key and entry are whole: an established flow is the first part of a brief one.
    let result = unsafe {
        bpf_map_update_elem(table, key.cast_mut().cast(), entry.cast_mut().cast(), flags.into())
    } as i32;
    match result {
        0 => Inserted::Done,
        EEXIST => Inserted::Exists,
        _ => Inserted::Full,
    }
}

/// Removes the entry of an established flow. Returns whether there was one.
#[inline(always)]
pub(crate) fn remove_established(key: *const FlowKey) -> bool {
    // SAFETY: the key is whole.
    unsafe { bpf_map_delete_elem(established_table(), key.cast_mut().cast()) as i32 == 0 }
}

/// As [`remove_established`], of a half-open or ended flow.
#[inline(always)]
pub(crate) fn remove_brief(key: *const FlowKey) -> bool {
    // SAFETY: as above.
    unsafe { bpf_map_delete_elem(brief_table(), key.cast_mut().cast()) as i32 == 0 }
}

/// The agent's settings of an interface; null if it has none.
#[inline(always)]
pub(crate) fn interface(index: u32) -> *mut Interface {
    of_interface((&raw const RD_INTERFACES).cast_mut().cast(), &u64::from(index)).cast()
}

/// The counters of an interface's flows; null if none has begun there.
#[inline(always)]
pub(crate) fn flows_of(interface: u32) -> *mut InterfaceFlows {
    of_interface(interface_flows_table(), &u64::from(interface)).cast()
}

/// The counters of an interface's flows, which are created by the first one; null without memory.
#[inline(always)]
pub(crate) fn interface_flows(work: *mut Work) -> *mut InterfaceFlows {
    let key = u64::from(get!(work.key.interface));
    let zeros = zeros(work);
    let table = interface_flows_table();
    let found = of_interface(table, &key);
    if !found.is_null() {
        return found.cast();
    }
    // SAFETY: key and value are whole.
    unsafe {
        bpf_map_update_elem(
            table,
            (&raw const key).cast_mut().cast(),
            zeros.cast_mut().cast(),
            BPF_NOEXIST.into(),
        )
    };
    of_interface(table, &key).cast()
}

#[inline(always)]
fn interface_flows_table() -> *mut c_void {
    (&raw const RD_IF_FLOWS).cast_mut().cast()
}

/// The element of an interface; null if there is none.
#[inline(always)]
fn of_interface(table: *mut c_void, index: &u64) -> *mut c_void {
    // SAFETY: the helper reads four bytes of the key; programs are built for little-endian
    // machines.
    unsafe { bpf_map_lookup_elem(table, core::ptr::from_ref(index).cast_mut().cast()) }
}

/// The value of a new element. On the stack the compiler would call `memset` for it.
#[inline(always)]
fn zeros(work: *mut Work) -> *const u64 {
    // SAFETY: the field has eight words.
    unsafe {
        let zeros = (&raw mut (*work).header).cast::<u64>();
        for at in 0..5 {
            core::ptr::write_volatile(zeros.add(at), 0);
        }
        zeros
    }
}

/// Counts a new flow of the guest's interface that was refused for want of room.
#[inline(always)]
pub(crate) fn count_refused(flows: *mut InterfaceFlows) {
    if !flows.is_null() {
        // SAFETY: an element stays mapped while a program runs.
        maps::add(unsafe { &mut (*flows).refused }, 1);
    }
}

/// Adds one to a counter of the packet datapath.
#[inline(always)]
pub(crate) fn count(counter: impl FnOnce(&mut PacketStats) -> &mut u64) {
    if let Some(stats) = maps::counters(&RD_PACKET_STATS, 0) {
        maps::add(counter(stats), 1);
    }
}
