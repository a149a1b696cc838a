//! The state of one selection while it reads a route's block.

use super::{
    packed::{Candidates, ClientKey},
    tables::Tables,
};
use crate::route::RouteEntry;

/// The route's entry and the client: two words.
///
/// After each lookup everything else is computed from them again, see
/// [`reload`](SelectState::reload): a value kept across the lookup would be spilled to the stack,
/// which costs more (see `decide/packed/mod.rs`).
pub(super) struct SelectState {
    entry: RouteEntry,
    key: ClientKey,
}

impl SelectState {
    /// The state for the resolved `key` and the `entry` of its route.
    #[inline(always)]
    pub(super) const fn new(entry: RouteEntry, key: ClientKey) -> Self {
        Self { entry, key }
    }

    #[inline(always)]
    pub(super) const fn entry(&self) -> RouteEntry {
        self.entry
    }

    #[inline(always)]
    pub(super) const fn key(&self) -> ClientKey {
        self.key
    }

    /// Makes the compiler forget what it computed from the two words.
    #[inline(always)]
    pub(super) fn reload(&mut self, tables: &(impl Tables + ?Sized)) {
        self.entry = RouteEntry::from_bits(tables.reload(self.entry.to_bits()));
        self.key = ClientKey::from_bits(tables.reload(self.key.to_bits()));
    }

    /// The backends of the family that the key was resolved to.
    #[inline(always)]
    pub(super) fn candidates(&self) -> Candidates {
        let (v4, v6) = (u32::from(self.entry.backends4), u32::from(self.entry.backends6()));
        // All ones for IPv6, or 0.
        let mask = self.key.v6_bit().wrapping_neg();
        Candidates {
            first: self.entry.first_backend().wrapping_add(v4 & mask),
            count: v4 ^ (v4 ^ v6) & mask,
            generation: self.entry.generation,
        }
    }
}
