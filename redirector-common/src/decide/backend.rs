//! The backend that a connect gets.

use super::{
    packed::{Families, Selection},
    tables::Tables,
};
use crate::{
    addr::{Ip6Be, PortBe},
    backend::BackendId,
    route::Slot,
};

/// A backend for one connect, in two words. Everything else is computed from them where it is used
/// (see `decide/packed/mod.rs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    selection: Selection,
    slot: Slot,
}

impl Backend {
    /// The backend in `slot`, which `selection` refers to.
    #[inline(always)]
    pub(super) const fn new(selection: Selection, slot: Slot) -> Self {
        Self { selection, slot }
    }

    /// The backend in `slot`, the only one of a route without options.
    #[inline(always)]
    pub(super) const fn single(slot: Slot, port: PortBe) -> Self {
        Self::new(Selection::single(port), slot)
    }

    /// The backend in `slot`, one of several eligible ones of a route without options.
    #[inline(always)]
    pub(super) const fn one_of_several(slot: Slot, port: PortBe) -> Self {
        Self::new(Selection::one_of_several(port), slot)
    }

    /// Its ID.
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
        self.selection.port()
    }

    /// Whether it is ejected, as is every other backend of the route.
    #[inline(always)]
    pub const fn all_ejected(self) -> bool {
        self.selection.draw().all_ejected()
    }

    /// Whether the route has another eligible backend, or this one has failed and the route has
    /// another one.
    #[inline(always)]
    pub const fn has_alternative(self) -> bool {
        self.selection.draw().has_alternative()
    }

    /// Whether this connect is the backend's trial: its ejection has expired, the route has another
    /// backend, and no other connect uses this one until the outcome is known.
    #[inline(always)]
    pub const fn is_trial(self) -> bool {
        self.selection.draw().is_trial()
    }

    /// Whether the route has options.
    #[inline(always)]
    pub const fn has_options(self) -> bool {
        self.selection.options_distance() != 0
    }

    /// The options of route `index` for a client of `families`; its source addresses are used in
    /// turn. Empty if the block was replaced since it was read: the options are lost for this
    /// connect.
    #[inline(always)]
    pub fn options(self, tables: &impl Tables, index: u32, families: Families) -> SocketOptions {
        let mut found = SocketOptions::default();
        let at = self.selection.slot().wrapping_add(self.selection.options_distance());
        let slot = tables.slot(at);
        if slot.generation() != self.selection.generation() {
            return found;
        }
        let options = slot.to_options();
        found.idle_seconds = options.idle_seconds;
        let (skipped, count) = if is_v6(families, self.slot) {
            (options.sources4, options.sources6)
        } else {
            (0, options.sources4)
        };
        if count == 0 {
            return found;
        }
        let turn = tables.connects(index) % u32::from(count);
        let slot =
            tables.slot(at.wrapping_add(1).wrapping_add(u32::from(skipped)).wrapping_add(turn));
        if slot.generation() == self.selection.generation() {
            found.source = address(tables, families, slot);
        }
        found
    }
}

/// The options that a route sets on one connect's socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// The load balancer's idle timeout in seconds; 0: unknown.
    pub idle_seconds: u16,
    /// The address to connect from, of the backend's family; `::`: the kernel's choice.
    pub source: Ip6Be,
}

/// The address in a backend's or a source's slot. An `AF_INET` socket uses one family only, which
/// shortens its program.
#[inline(always)]
fn address(tables: &impl Tables, families: Families, slot: Slot) -> Ip6Be {
    if is_v6(families, slot) { tables.address6(slot.id()) } else { Ip6Be::mapped(slot.address()) }
}

/// Whether a client of `families` gets an IPv6 address from `slot`.
#[inline(always)]
const fn is_v6(families: Families, slot: Slot) -> bool {
    (families.prefer_v6 || families.dual_stack) && slot.is_v6()
}
