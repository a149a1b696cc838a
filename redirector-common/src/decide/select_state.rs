//! What is known while a block is read.

use super::{
    packed::{Asked, Candidates},
    tables::Tables,
};
use crate::route::RouteEntry;

/// What is known of a route and of its client while its block is read: two words.
///
/// After each look at a table everything is worked out [`afresh`](Known::afresh) from them: a value
/// that is kept over it would be stored on the stack, and that costs more, see [`super::Choice`].
pub(super) struct Known {
    pub(super) entry: RouteEntry,
    pub(super) asked: Asked,
}

impl Known {
    #[inline(always)]
    pub(super) fn afresh(&mut self, tables: &(impl Tables + ?Sized)) {
        self.entry = RouteEntry::of_word(tables.afresh(self.entry.word()));
        self.asked = Asked(tables.afresh(self.asked.0));
    }

    /// The backends of the family that was settled on.
    #[inline(always)]
    pub(super) fn candidates(&self) -> Candidates {
        let (four, six) = (u32::from(self.entry.backends4), u32::from(self.entry.backends6()));
        // All ones for IPv6, or 0.
        let mask = self.asked.six().wrapping_neg();
        Candidates {
            first: self.entry.first_backend().wrapping_add(four & mask),
            count: four ^ (four ^ six) & mask,
            generation: self.entry.generation,
        }
    }
}
