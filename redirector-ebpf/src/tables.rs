//! [`Tables`] for the maps in the kernel, with the searches as global functions.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use redirector_common::{
    addr::{Ip6Be, PortBe},
    backend::{BackendId, Caller, Health},
    decide::{
        self, Candidates, ClientKey, Draw, DrawInput, PortLookup, PortPairs, Selection, Tables,
    },
    route::{RouteEntry, Slot},
};

use crate::{
    maps::{
        self, RD_BACKENDS6, RD_HEALTH, RD_ROUTE_STATS, RD_ROUTES, RD_SLOTS, element, now_ns,
        read_address, read_once,
    },
    opaque,
};

/// The pinned tables.
pub(crate) struct KernelTables;

impl Tables for KernelTables {
    #[inline(always)]
    fn route(&self, index: u32) -> RouteEntry {
        // SAFETY: a map value stays mapped while a program runs; 8 aligned bytes are read in one
        // access.
        element(&RD_ROUTES, index)
            .map_or_else(RouteEntry::default, |entry| unsafe { read_once(entry) })
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Slot {
        // SAFETY: as above.
        element(&RD_SLOTS, index).map_or_else(Slot::default, |slot| unsafe { read_once(slot) })
    }

    #[inline(always)]
    fn slot_in_block(&self, index: u32, generation: u8) -> Option<Slot> {
        // SAFETY: as above.
        let slot: Slot = unsafe { read_once(element(&RD_SLOTS, index)?) };
        if slot.generation() == generation { Some(slot) } else { None }
    }

    #[inline(always)]
    fn address6(&self, id: BackendId) -> Ip6Be {
        // SAFETY: as above. An ID's address is written before any block has the ID, and the ID that
        // has been free for longest is reused first.
        element(&RD_BACKENDS6, id.0)
            .map_or_else(Ip6Be::default, |address| unsafe { read_address(address) })
    }

    #[inline(always)]
    fn connects(&self, index: u32) -> u32 {
        // SAFETY: as above.
        element(&RD_ROUTE_STATS, index)
            .map_or(0, |stats| unsafe { core::ptr::read_volatile(&raw const (*stats).started) }
                as u32)
    }

    #[inline(always)]
    fn health(&self, id: BackendId, port: PortBe) -> Health {
        // SAFETY: as above.
        element(&RD_HEALTH, Health::index(id, port))
            .map_or(Health::HEALTHY, |health| unsafe { read_once(health) })
    }

    #[inline(always)]
    fn known_health(&self, id: BackendId, port: PortBe) -> Option<Health> {
        // SAFETY: as above.
        element(&RD_HEALTH, Health::index(id, port)).map(|health| unsafe { read_once(health) })
    }

    #[inline(always)]
    fn succeeded_ns(&self, id: BackendId) -> Option<u64> {
        // SAFETY: as above.
        maps::backend_stats(id)
            .map(|stats| unsafe { core::ptr::read_volatile(&raw const stats.succeeded_ns) })
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        now_ns()
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: takes nothing and changes nothing of ours.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn find_port(&self, pairs: PortPairs, client: PortBe) -> PortLookup {
        PortLookup::from_bits(rd_find_port(
            pairs.first,
            pairs.count,
            u32::from(pairs.generation),
            u32::from(client.0),
        ))
    }

    #[inline(always)]
    fn scan_eligible(&self, candidates: Candidates, input: DrawInput) -> Draw {
        let shape = candidates.shape();
        let caller = input.caller.to_bits();
        Draw::from_bits(rd_scan(candidates.first, shape, input.offset, input.last.0, caller))
    }

    #[inline(always)]
    fn latest_success(&self, candidates: Candidates, input: DrawInput) -> u32 {
        rd_latest(candidates.first, candidates.shape(), input.offset, input.last.0)
    }

    #[inline(always)]
    fn select(&self, index: u32, key: ClientKey) -> Selection {
        let (lower, upper) = key.halves();
        Selection::from_bits(rd_select(index, lower, upper))
    }

    #[inline(always)]
    fn reload(&self, word: u64) -> u64 {
        opaque::reload(word)
    }
}

// Global functions: the verifier checks each once, for any arguments, and not for every state of
// its caller, which would multiply two loops (141,442 instructions for `rd_connect4` on 6.18; see
// docs/reference/verifier.md for the current figures). They take integers only: pointers need 5.12.

/// See [`decide::select()`]; `lower` and `upper` are a [`ClientKey`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_select(index: u32, lower: u32, upper: u32) -> u64 {
    decide::select(&KernelTables, index, ClientKey::from_halves(lower, upper)).to_bits()
}

/// See [`decide::find_port()`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_find_port(first: u32, count: u32, generation: u32, client: u32) -> u32 {
    let pairs = PortPairs { first, count, generation: generation as u8 };
    decide::find_port(&KernelTables, pairs, PortBe(client as u16)).to_bits()
}

/// See [`decide::scan_eligible()`]; `shape` is [`Candidates::shape`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_scan(first: u32, shape: u32, offset: u32, last: u32, caller: u32) -> u32 {
    let input = DrawInput { offset, last: BackendId(last), caller: Caller::from_bits(caller) };
    decide::scan_eligible(&KernelTables, Candidates::from_shape(first, shape), input).to_bits()
}

/// See [`decide::latest_success()`]; `shape` is [`Candidates::shape`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_latest(first: u32, shape: u32, offset: u32, last: u32) -> u32 {
    let input = DrawInput { offset, last: BackendId(last), caller: Caller::from_bits(0) };
    decide::latest_success(&KernelTables, Candidates::from_shape(first, shape), input)
}
