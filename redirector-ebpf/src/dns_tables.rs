//! The tables of DNS interception at sockets. Only the agent writes them.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use redirector_common::{
    addr::{Ip4Be, Ip6Be},
    decide,
    dns::{COUNTERS, SLOTS, Shim},
};

use crate::maps;

/// See [`redirector_common::names::SHIM`].
#[btf_map]
static RD_SHIM: Array<Shim, 1> = Array::new();

/// See [`redirector_common::names::RESOLVERS`].
#[btf_map]
static RD_RESOLVERS: Array<Ip6Be, { SLOTS as usize }> = Array::new();

/// See [`redirector_common::names::DNS_STATS`].
#[btf_map]
static RD_DNS_STATS: Array<u64, { COUNTERS as usize }> = Array::new();

/// Where intercepted queries go.
#[inline(always)]
pub(crate) fn shim() -> Shim {
    let Some(shim) = maps::element(&RD_SHIM, 0) else { return Shim::default() };
    // SAFETY: a map value stays mapped while a program runs; only `enabled`, one word,
    // changes while it is read.
    unsafe {
        Shim {
            host_netns: core::ptr::read_volatile(&raw const (*shim).host_netns),
            ip6: maps::read_address(&raw const (*shim).ip6),
            ip4: Ip4Be(core::ptr::read_volatile(&raw const (*shim).ip4.0)),
            first_port: core::ptr::read_volatile(&raw const (*shim).first_port),
            enabled: core::ptr::read_volatile(&raw const (*shim).enabled),
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

/// The resolver in `slot`; `::` if it is unused.
#[inline(always)]
pub(crate) fn resolver(slot: u32) -> Ip6Be {
    // SAFETY: as above; the agent writes resolvers only while interception is off.
    maps::element(&RD_RESOLVERS, slot)
        .map_or_else(Ip6Be::default, |resolver| unsafe { maps::read_address(resolver) })
}

/// The slot of a resolver; see [`decide::find_slot()`].
#[inline(always)]
pub(crate) fn find_slot(resolver: Ip6Be) -> u32 {
    let [a, b, c, d] = resolver.0;
    rd_find_slot(a, b, c, d)
}

/// A global function, as those of [`crate::tables`]: the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_find_slot(a: u32, b: u32, c: u32, d: u32) -> u32 {
    decide::find_slot(resolver, Ip6Be([a, b, c, d]))
}
