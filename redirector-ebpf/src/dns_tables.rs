//! The tables of DNS interception.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use redirector_common::{
    addr::{Ip4Be, Ip6Be},
    decide::{self, Claim, SlotState, SlotTable},
    dns::{COUNTERS, Resolver, SLOTS, Shim},
};

use crate::maps;

/// See [`redirector_common::names::SHIM`].
#[btf_map]
static RD_SHIM: Array<Shim, 1> = Array::new();

/// See [`redirector_common::names::RESOLVERS`].
#[btf_map]
static RD_RESOLVERS: HashMap<u32, Resolver, { SLOTS as usize }> = HashMap::new();

/// See [`redirector_common::names::DNS_STATS`].
#[btf_map]
static RD_DNS_STATS: Array<u64, { COUNTERS as usize }> = Array::new();

/// Where intercepted queries go.
#[inline(always)]
pub(crate) fn shim() -> Shim {
    let Some(shim) = maps::element(&RD_SHIM, 0) else { return Shim::default() };
    // SAFETY: a map value stays mapped while a program runs; only `mode`, one word, changes
    // while it is read.
    unsafe {
        Shim {
            host_netns: core::ptr::read_volatile(&raw const (*shim).host_netns),
            ip6: maps::read_address(&raw const (*shim).ip6),
            ip4: Ip4Be(core::ptr::read_volatile(&raw const (*shim).ip4.0)),
            first_port: core::ptr::read_volatile(&raw const (*shim).first_port),
            mode: core::ptr::read_volatile(&raw const (*shim).mode),
            padding: 0,
        }
    }
}

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counter: u32) {
    if let Some(counter) = maps::counters(&RD_DNS_STATS, counter) {
        maps::add(counter, 1);
    }
}

/// The resolver in `slot`; `::` if it is free.
#[inline(always)]
pub(crate) fn resolver(slot: u32) -> Ip6Be {
    // SAFETY: as above; an element is created in one step, and its address never changes.
    RD_RESOLVERS.get_ptr(slot).map_or_else(Ip6Be::default, |resolver| unsafe {
        maps::read_address(&raw const (*resolver).address)
    })
}

/// The slot of a resolver; see [`decide::find_slot()`].
#[inline(always)]
pub(crate) fn find_slot(resolver: Ip6Be, claim: Claim) -> u32 {
    let [a, b, c, d] = resolver.0;
    let slot = rd_find_slot(a, b, c, d, claim as u32);
    // A resolver that lost the race for a free slot tries once more.
    if slot < SLOTS { slot } else { rd_find_slot(a, b, c, d, claim as u32) }
}

/// A global function, as those of [`crate::tables`]: the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_find_slot(a: u32, b: u32, c: u32, d: u32, claim: u32) -> u32 {
    decide::find_slot(&KernelSlots, Ip6Be([a, b, c, d]), claim)
}

/// The pinned table of resolvers.
struct KernelSlots;

impl SlotTable for KernelSlots {
    #[inline(always)]
    fn state(&self, slot: u32, resolver: Ip6Be) -> SlotState {
        let Some(found) = RD_RESOLVERS.get_ptr(slot) else { return SlotState::Free };
        // SAFETY: as above.
        let (address, listed) = unsafe {
            (
                maps::read_address(&raw const (*found).address),
                core::ptr::read_volatile(&raw const (*found).listed),
            )
        };
        if !address.is_same(resolver) {
            SlotState::Other
        } else if listed != 0 {
            SlotState::Listed
        } else {
            SlotState::Unlisted
        }
    }

    #[inline(always)]
    fn claim(&self, slot: u32, resolver: Ip6Be) -> bool {
        let element = Resolver { address: resolver, listed: 0, padding: 0 };
        RD_RESOLVERS.insert(slot, element, u64::from(BPF_NOEXIST)).is_ok()
    }
}
