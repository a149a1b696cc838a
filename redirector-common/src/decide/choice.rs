//! Which backend a connect gets: uniform over the eligible ones of the right family, not the one that this socket tried last.

use super::connect::{Client, Read, Tables};
use crate::{
    abi::MAX_BACKENDS,
    addr::{Ip6Be, PortBe},
    backend::{BackendId, Health},
    route::{Options, RouteEntry, Slot},
};

/// Which addresses a connect can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// The client asked for an IPv6 address (not an IPv4-mapped one), so IPv6 backends come first.
    pub six_first: bool,
    /// The socket is one for both families: a route that has none of the family asked for serves it with the other. An `AF_INET` socket is not,
    /// nor is one that is bound to an address.
    pub both: bool,
}

impl Families {
    /// An `AF_INET` socket.
    pub const ONLY4: Self = Self { six_first: false, both: false };
}

/// A backend for one connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Its number.
    pub id: BackendId,
    /// Its address; an IPv4 one in its mapped form.
    pub address: Ip6Be,
    /// The port to connect to.
    pub port: PortBe,
    /// It is set aside, but so is every other.
    pub desperate: bool,
    /// The route has another one that is eligible.
    pub another: bool,
    /// The load balancer's idle time-out in seconds; 0: none is known.
    pub idle_seconds: u16,
    /// The address to connect from, of the same family; `::` leaves it to the kernel.
    pub source: Ip6Be,
}

/// The backends of one family in a block.
#[derive(Clone, Copy)]
struct Candidates {
    first: u32,
    count: u32,
    generation: u8,
}

impl Candidates {
    #[inline(always)]
    fn new(entry: RouteEntry, families: Families) -> Self {
        let (four, six) = (u32::from(entry.backends4), u32::from(entry.backends6()));
        let use6 = if families.six_first { !(families.both && six == 0) } else { families.both && four == 0 };
        let first = entry.first_backend();
        if use6 {
            Self { first: first.wrapping_add(four), count: six, generation: entry.generation }
        } else {
            Self { first, count: four, generation: entry.generation }
        }
    }

    /// One of them. Another generation's when the block was replaced meanwhile.
    #[inline(always)]
    fn get(self, tables: &impl Tables, offset: u32) -> Slot {
        let slot = tables.slot(self.first.wrapping_add(offset));
        slot.unwrap_or(Slot::options(self.generation.wrapping_add(1), Options::default()))
    }
}

/// Fills `choice` with a backend of `entry`, avoiding `last` while another one is eligible. Port, idle time-out and source are left for the caller to fill in.
///
/// A first draw is taken as it is when it is eligible: with all healthy, that is one random number and a look at its neighbour, which tells
/// that there is another. Otherwise the eligible ones are counted and, if the first draw was none, one of them is drawn; together the two draws are
/// uniform over the eligible.
///
/// The result goes to a place that is initialised, not into an enum: parts of an enum that are not set make the compiler copy undefined stack,
/// "invalid read from stack off -40+0 size 8" without CAP_PERFMON (6.18).
#[inline(always)]
pub fn choose(tables: &impl Tables, entry: RouteEntry, client: Client, choice: &mut Choice) -> Read {
    let Client { families, last, .. } = client;
    let candidates = Candidates::new(entry, families);
    let count = candidates.count;
    if count == 0 {
        return Read::None;
    }
    let drawn = if count == 1 { 0 } else { below(tables.random(), count) };
    let slot = candidates.get(tables, drawn);
    if slot.generation() != entry.generation {
        return Read::Stale;
    }
    let is_fine = slot.id().0 != last.0 && tables.health(slot.id()).0 == Health::HEALTHY.0;
    if is_fine {
        if count == 1 {
            return chosen(tables, families, slot, choice);
        }
        let next = if drawn + 1 == count { 0 } else { drawn + 1 };
        let neighbour = candidates.get(tables, next);
        if neighbour.generation() != entry.generation {
            return Read::Stale;
        }
        if tables.health(neighbour.id()).0 == Health::HEALTHY.0 {
            choice.another = true;
            return chosen(tables, families, slot, choice);
        }
    }
    survey(tables, candidates, (families, last, slot), choice)
}

/// Fills `choice` with a backend of `entry`, whatever its health.
#[inline(always)]
pub(super) fn any(tables: &impl Tables, entry: RouteEntry, client: Client, choice: &mut Choice) -> Read {
    let candidates = Candidates::new(entry, client.families);
    if candidates.count == 0 {
        return Read::None;
    }
    let slot = candidates.get(tables, below(tables.random(), candidates.count));
    if slot.generation() != entry.generation {
        return Read::Stale;
    }
    chosen(tables, client.families, slot, choice)
}

/// Enough bits for a count of [`MAX_BACKENDS`].
const COUNT_MASK: u32 = 2 * MAX_BACKENDS as u32 - 1;

/// The second draw, over the eligible ones only. `drawn` stands if it is one of them, and is taken if there is none.
#[inline(always)]
fn survey(tables: &impl Tables, candidates: Candidates, asked: (Families, BackendId, Slot), choice: &mut Choice) -> Read {
    let (families, last, drawn) = asked;
    let now = tables.now_ns();
    // The verifier must not know that this is 0, or each count makes a state of its own and it gives up on the loop: "BPF program is too
    // large. Processed 1000001 insn" (6.18). Nobody has the number NONE, so its health is 0, but only we know. A count that starts unknown and
    // is masked is the same state in every round.
    let zero = tables.health(BackendId::NONE).0 as u32;
    let mut eligible = zero & COUNT_MASK;
    let mut pick = drawn;
    let mut retry = Slot::default();
    for offset in 0..MAX_BACKENDS as u32 {
        if offset >= candidates.count {
            break;
        }
        let slot = candidates.get(tables, offset);
        if slot.generation() != candidates.generation {
            return Read::Stale;
        }
        if tables.health(slot.id()).is_set_aside(now) {
            continue;
        }
        if slot.id().0 == last.0 {
            retry = slot;
            continue;
        }
        // Reservoir sampling: the n-th eligible one replaces the pick with probability 1/n, so one pass is enough.
        eligible = (eligible + 1) & COUNT_MASK;
        if below(tables.random(), eligible) == 0 {
            pick = slot;
        }
    }
    choice.another = eligible > 1 || eligible == 1 && retry.tag != 0;
    let stands = drawn.id().0 != last.0 && !tables.health(drawn.id()).is_set_aside(now);
    let slot = if stands {
        drawn
    } else if eligible != 0 {
        pick
    } else if retry.tag != 0 {
        retry
    } else {
        drawn
    };
    choice.desperate = !stands && eligible == 0 && retry.tag == 0;
    chosen(tables, families, slot, choice)
}

#[inline(always)]
fn chosen(tables: &impl Tables, families: Families, slot: Slot, choice: &mut Choice) -> Read {
    choice.id = slot.id();
    choice.address = address(tables, families, slot);
    Read::Done
}

/// The address in a slot of a backend or a source. For an `AF_INET` socket there is one kind only, and the programs are shorter.
#[inline(always)]
pub(super) fn address(tables: &impl Tables, families: Families, slot: Slot) -> Ip6Be {
    if (families.six_first || families.both) && slot.is_v6() { tables.address6(slot.id()) } else { Ip6Be::mapped(slot.address()) }
}

/// A number below `count` from a uniform one, without division (Lemire 2019); the bias is below 2⁻²⁶ for up to 64.
#[inline(always)]
const fn below(random: u32, count: u32) -> u32 {
    ((random as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
