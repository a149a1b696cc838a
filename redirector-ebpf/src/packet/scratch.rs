//! The memory that a packet's program works in.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};

use super::{names::scratch::NameScratch, work::Work};

/// Memory that one packet's program works in.
#[repr(C)]
pub(crate) struct Scratch {
    /// See [`NameScratch`].
    pub(crate) names: NameScratch,
    /// The segment of a guest's flow.
    pub(crate) work: Work,
}

/// See [`redirector_common::names::SCRATCH`].
#[btf_map]
pub(crate) static RD_SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// The memory of this processor. Others that run on it have finished with it: programs are not
/// preempted by each other.
#[inline(always)]
pub(crate) fn scratch() -> Option<*mut Scratch> {
    RD_SCRATCH.get_ptr_mut(0)
}

/// This processor's memory. It belongs to one packet at a time: the hook runs with soft interrupts
/// off.
#[inline(always)]
pub(crate) fn work() -> Option<*mut Work> {
    // SAFETY: the field of an element.
    scratch().map(|scratch| unsafe { &raw mut (*scratch).work })
}
