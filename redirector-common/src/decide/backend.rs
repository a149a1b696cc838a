//! The backend that a connect gets.

use super::{
    packed::{Families, Pick},
    tables::Tables,
};
use crate::{
    addr::{Ip6Be, PortBe},
    backend::BackendId,
    route::Slot,
};

/// A backend for one connect: two words, as they stand in the tables. What is made of them is made
/// where it is used, since each value that is kept over a call takes a place on the stack, and
/// without CAP_PERFMON the kernel puts a barrier behind the first store to each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pick: Pick,
    slot: Slot,
}

impl Choice {
    /// The backend in `slot`, which `pick` led to.
    #[inline(always)]
    pub(super) const fn new(pick: Pick, slot: Slot) -> Self {
        Self { pick, slot }
    }

    /// The backend in `slot`, when there is no other one and nothing else to say.
    #[inline(always)]
    pub(super) const fn only(slot: Slot, port: PortBe) -> Self {
        Self { pick: Pick::only(port), slot }
    }

    /// The backend in `slot`, when there are others, all eligible, and nothing else to say.
    #[inline(always)]
    pub(super) const fn one_of(slot: Slot, port: PortBe) -> Self {
        Self { pick: Pick::one_of(port), slot }
    }

    /// Its number.
    #[inline(always)]
    pub const fn id(self) -> BackendId {
        self.slot.id()
    }

    /// Its address for a client of `families`; an IPv4 one in its mapped form.
    #[inline(always)]
    pub fn address(self, tables: &impl Tables, families: Families) -> Ip6Be {
        address(tables, families, self.slot)
    }

    /// The port to connect to.
    #[inline(always)]
    pub const fn port(self) -> PortBe {
        self.pick.port()
    }

    /// It is set aside, but so is every other.
    #[inline(always)]
    pub const fn desperate(self) -> bool {
        self.pick.drawing().desperate()
    }

    /// The route has another one that is eligible.
    #[inline(always)]
    pub const fn another(self) -> bool {
        self.pick.drawing().another()
    }

    /// It has failed, its time is over, and there is another: nobody else is to try it until this
    /// connect's fate is known.
    #[inline(always)]
    pub const fn trial(self) -> bool {
        self.pick.drawing().trial()
    }

    /// Whether the route says more than ports and backends.
    #[inline(always)]
    pub const fn has_options(self) -> bool {
        self.pick.options() != 0
    }

    /// The options of route `index`, with the source address whose turn it is, for a client of
    /// `families`. None, if the block was replaced since: what they were is unknown then, and this
    /// connect goes without.
    #[inline(always)]
    pub fn options(self, tables: &impl Tables, index: u32, families: Families) -> Extras {
        let mut extras = Extras::default();
        let at = self.pick.slot().wrapping_add(self.pick.options());
        let slot = tables.slot(at);
        if slot.generation() != self.pick.generation() {
            return extras;
        }
        let options = slot.as_options();
        extras.idle_seconds = options.idle_seconds;
        let (before, count) = if is_v6(families, self.slot) {
            (options.sources4, options.sources6)
        } else {
            (0, options.sources4)
        };
        if count == 0 {
            return extras;
        }
        let turn = tables.turn(index) % u32::from(count);
        let slot =
            tables.slot(at.wrapping_add(1).wrapping_add(u32::from(before)).wrapping_add(turn));
        if slot.generation() == self.pick.generation() {
            extras.source = address(tables, families, slot);
        }
        extras
    }
}

/// What a route says beyond ports and backends, for one connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// The load balancer's idle time-out in seconds; 0: none is known.
    pub idle_seconds: u16,
    /// The address to connect from, of the backend's family; `::` leaves it to the kernel.
    pub source: Ip6Be,
}

/// The address in a slot of a backend or a source. For an `AF_INET` socket there is one kind only,
/// and the programs are shorter.
#[inline(always)]
pub(super) fn address(tables: &impl Tables, families: Families, slot: Slot) -> Ip6Be {
    if is_v6(families, slot) { tables.address6(slot.id()) } else { Ip6Be::mapped(slot.address()) }
}

/// Whether a client of `families` finds an IPv6 address in that slot.
#[inline(always)]
pub(super) const fn is_v6(families: Families, slot: Slot) -> bool {
    (families.six_first || families.both) && slot.is_v6()
}
