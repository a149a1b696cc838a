//! The tables as decisions read them.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use redirector_common::{
    addr::{Ip6Be, PortBe},
    backend::{BackendId, Health},
    decide::{self, Asked, Candidates, Drawing, Drawn, Found, Pick, Ports, Tables},
    route::{RouteEntry, Slot},
};

use crate::maps::{
    RD_BACKENDS6, RD_HEALTH, RD_ROUTE_STATS, RD_ROUTES, RD_SLOTS, afresh, element, now_ns,
    read_address, read_once,
};

/// The tables as decisions read them.
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
    fn slot_of(&self, index: u32, generation: u8) -> Option<Slot> {
        // SAFETY: as above.
        let slot: Slot = unsafe { read_once(element(&RD_SLOTS, index)?) };
        if slot.generation() == generation { Some(slot) } else { None }
    }

    #[inline(always)]
    fn address6(&self, id: BackendId) -> Ip6Be {
        // SAFETY: as above. The address was written before the block that has its number, and a
        // number is given to another address only after all others were.
        element(&RD_BACKENDS6, id.0)
            .map_or_else(Ip6Be::default, |address| unsafe { read_address(address) })
    }

    #[inline(always)]
    fn turn(&self, index: u32) -> u32 {
        // SAFETY: as above.
        element(&RD_ROUTE_STATS, index)
            .map_or(0, |stats| unsafe { core::ptr::read_volatile(&raw const (*stats).started) }
                as u32)
    }

    #[inline(always)]
    fn health(&self, id: BackendId) -> Health {
        // SAFETY: as above.
        element(&RD_HEALTH, id.0).map_or(Health::HEALTHY, |health| unsafe { read_once(health) })
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        now_ns()
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: takes nothing, touches nothing of ours.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn find_port(&self, ports: Ports, client: PortBe) -> Found {
        Found(rd_find_port(
            ports.first,
            ports.count,
            u32::from(ports.generation),
            u32::from(client.0),
        ))
    }

    #[inline(always)]
    fn survey(&self, candidates: Candidates, drawn: Drawn) -> Drawing {
        let shape = candidates.count | u32::from(candidates.generation) << 8;
        Drawing(rd_survey(candidates.first, shape, drawn.offset, drawn.last.0))
    }

    #[inline(always)]
    fn pick(&self, index: u32, asked: Asked) -> Pick {
        Pick(rd_pick(index, asked.0 as u32, (asked.0 >> 32) as u32))
    }

    #[inline(always)]
    fn afresh(&self, word: u64) -> u64 {
        afresh(word)
    }
}

// Global functions: the verifier checks each once, with any arguments, not once more for every
// state of its caller, which multiplied two loops (141,442 instructions for `rd_connect4` on 6.18;
// with these see docs/ARCHITECTURE.md). Numbers only: pointers need 5.12.

/// See [`decide::pick()`]; `lower` and `upper` are the halves of [`Asked`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_pick(index: u32, lower: u32, upper: u32) -> u64 {
    decide::pick(&KernelTables, index, Asked(u64::from(lower) | u64::from(upper) << 32)).0
}

/// See [`decide::find_port()`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_find_port(first: u32, count: u32, generation: u32, client: u32) -> u32 {
    let ports = Ports { first, count, generation: generation as u8 };
    decide::find_port(&KernelTables, ports, PortBe(client as u16)).0
}

/// See [`decide::survey()`]; `shape` is the number of candidates and, from bit 8, their generation.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_survey(first: u32, shape: u32, offset: u32, last: u32) -> u32 {
    let candidates = Candidates { first, count: shape & 0xff, generation: (shape >> 8) as u8 };
    decide::survey(&KernelTables, candidates, Drawn { offset, last: BackendId(last) }).0
}
