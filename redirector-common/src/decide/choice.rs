//! Which backend a connect gets: uniform over the eligible ones of the right family, not the one that this socket tried last.

use super::{
    bits,
    connect::{Client, Read, Tables},
    unrolled::unrolled,
};
use crate::{
    abi::MAX_BACKENDS,
    addr::{Ip6Be, PortBe},
    backend::{BackendId, Health},
    route::{RouteEntry, Slot},
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
#[derive(Clone, Copy, Debug)]
pub struct Candidates {
    /// The first one's slot.
    pub first: u32,
    /// How many; no more than [`MAX_BACKENDS`] are looked at.
    pub count: u32,
    /// The block's generation.
    pub generation: u8,
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
    fn get(self, tables: &(impl Tables + ?Sized), offset: u32) -> Slot {
        tables.slot(self.first.wrapping_add(offset))
    }
}

/// What a survey starts from.
#[derive(Clone, Copy, Debug)]
pub struct Drawn {
    /// The place of the first draw's backend among the candidates.
    pub offset: u32,
    /// The last backend of this socket.
    pub last: BackendId,
}

/// What a survey found, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Survey(pub u32);

impl Survey {
    const OFFSET: u32 = MAX_BACKENDS as u32 - 1;
    const ANOTHER: u32 = 0x100;
    const DESPERATE: u32 = 0x200;
    const STALE: Self = Self(0x400);

    /// The place of the backend that the connect gets.
    pub const fn offset(self) -> u32 {
        self.0 & Self::OFFSET
    }

    /// See [`Choice::another`].
    pub const fn another(self) -> bool {
        self.0 & Self::ANOTHER != 0
    }

    /// See [`Choice::desperate`].
    pub const fn desperate(self) -> bool {
        self.0 & Self::DESPERATE != 0
    }

    /// The block was replaced meanwhile; the rest says nothing.
    pub const fn is_stale(self) -> bool {
        self.0 & Self::STALE.0 != 0
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
    surveyed(tables, candidates, (families, Drawn { offset: drawn, last }), choice)
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

/// Takes the backend that a survey finds.
#[inline(always)]
fn surveyed(tables: &impl Tables, candidates: Candidates, (families, drawn): (Families, Drawn), choice: &mut Choice) -> Read {
    let survey = tables.survey(candidates, drawn);
    if survey.is_stale() {
        return Read::Stale;
    }
    let slot = candidates.get(tables, survey.offset());
    if slot.generation() != candidates.generation {
        return Read::Stale;
    }
    choice.another = survey.another();
    choice.desperate = survey.desperate();
    chosen(tables, families, slot, choice)
}

/// The second draw, over the eligible ones only. The first one stands if it is one of them, and is taken if there is none.
///
/// Arithmetic instead of branches: each branch is a state that the verifier follows to the end, and the rounds multiply them.
#[inline(always)]
pub fn survey(tables: &(impl Tables + ?Sized), candidates: Candidates, drawn: Drawn) -> Survey {
    let now = tables.now_ns();
    let mut stale = 0;
    // One bit for each place.
    let (mut due, mut last) = (0_u64, 0_u64);
    unrolled!(offset in 0..64 {
        if offset >= candidates.count {
            break;
        }
        let slot = candidates.get(tables, offset);
        stale |= slot.generation() ^ candidates.generation;
        due |= tables.health(slot.id()).due_bit(now) << offset;
        last |= zero_bit(slot.id().0 ^ drawn.last.0) << offset;
    });
    if stale != 0 {
        return Survey::STALE;
    }
    let (others, retry) = (due & !last, due & last);
    let stands = others >> (drawn.offset & Survey::OFFSET) & 1 != 0;
    let another = if due & due.wrapping_sub(1) != 0 { Survey::ANOTHER } else { 0 };
    if stands {
        Survey(drawn.offset & Survey::OFFSET | another)
    } else if others != 0 {
        Survey(bits::select(others, below(tables.random(), others.count_ones())) | another)
    } else if retry != 0 {
        Survey(bits::select(retry, 0))
    } else {
        Survey(drawn.offset & Survey::OFFSET | Survey::DESPERATE)
    }
}

/// 1 for 0, else 0.
#[inline(always)]
const fn zero_bit(number: u32) -> u64 {
    (number as u64).wrapping_sub(1) >> 63
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
