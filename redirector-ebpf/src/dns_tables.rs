//! The tables of DNS interception, and what decisions read of them.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use redirector_common::{
    addr::{Ip4Be, Ip6Be},
    decide::{self, Claims, Held, Slots},
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

/// Where intercepted DNS goes.
#[inline(always)]
pub(crate) fn shim() -> Shim {
    let Some(shim) = maps::element(&RD_SHIM, 0) else { return Shim::default() };
    // SAFETY: a map value stays mapped while a program runs; nothing but `mode`, one word, changes
    // while it is looked at.
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

/// Counts one more.
#[inline(always)]
pub(crate) fn count(counter: u32) {
    if let Some(counter) = maps::counters(&RD_DNS_STATS, counter) {
        maps::add(counter, 1);
    }
}

/// The resolver in `slot`; `::` when there is none.
#[inline(always)]
pub(crate) fn resolver(slot: u32) -> Ip6Be {
    // SAFETY: as above; an element is made whole, and its address is not changed afterwards.
    RD_RESOLVERS.get_ptr(slot).map_or_else(Ip6Be::default, |resolver| unsafe {
        maps::read_address(&raw const (*resolver).address)
    })
}

/// The slot of a resolver; see [`decide::slot_of()`].
#[inline(always)]
pub(crate) fn slot_of(asked: Ip6Be, claims: Claims) -> u32 {
    let [a, b, c, d] = asked.0;
    let slot = rd_slot(a, b, c, d, claims as u32);
    // Perhaps only the race for a free one was lost, which nobody loses twice.
    if slot < SLOTS { slot } else { rd_slot(a, b, c, d, claims as u32) }
}

/// Global, as the loops of [`crate::maps`] are: the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_slot(a: u32, b: u32, c: u32, d: u32, claims: u32) -> u32 {
    decide::slot_of(&KernelSlots, Ip6Be([a, b, c, d]), claims)
}

/// The table of resolvers as the search for a slot reads it.
struct KernelSlots;

impl Slots for KernelSlots {
    #[inline(always)]
    fn held(&self, slot: u32, asked: Ip6Be) -> Held {
        let Some(resolver) = RD_RESOLVERS.get_ptr(slot) else { return Held::Free };
        // SAFETY: as above.
        let (address, listed) = unsafe {
            (
                maps::read_address(&raw const (*resolver).address),
                core::ptr::read_volatile(&raw const (*resolver).listed),
            )
        };
        if !address.is_same(asked) {
            Held::Other
        } else if listed != 0 {
            Held::Listed
        } else {
            Held::This
        }
    }

    #[inline(always)]
    fn claim(&self, slot: u32, asked: Ip6Be) -> bool {
        RD_RESOLVERS
            .insert(
                slot,
                Resolver { address: asked, listed: 0, padding: 0 },
                u64::from(BPF_NOEXIST),
            )
            .is_ok()
    }
}
