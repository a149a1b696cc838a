//! Routes whose new definition waits for its first addresses.

use std::collections::{BTreeMap, BTreeSet};

use crate::route::SourceName;

/// Routes that are held back: nothing of theirs changes until their destination is known.
#[derive(Default)]
pub(crate) struct HeldRoutes {
    /// The change that holds each source back.
    held: BTreeMap<SourceName, u64>,
    /// Sources whose backends in the kernel belong to a former destination.
    replaced: BTreeSet<SourceName>,
    last_change: u64,
}

impl HeldRoutes {
    /// Holds `source` back. `replaced`: its destination has changed.
    pub(crate) fn hold(&mut self, source: &SourceName, replaced: bool) {
        self.last_change += 1;
        self.held.insert(source.clone(), self.last_change);
        if replaced {
            self.replaced.insert(source.clone());
        }
    }

    /// Ends the wait of `change`; a later change of the same source still holds it back.
    pub(crate) fn release(&mut self, source: &SourceName, change: u64) {
        if self.held.get(source) == Some(&change) {
            self.held.remove(source);
        }
    }

    /// The change that holds `source` back.
    pub(crate) fn change_of(&self, source: &SourceName) -> Option<u64> {
        self.held.get(source).copied()
    }

    /// Whether `source` is held back.
    pub(crate) fn contains(&self, source: &SourceName) -> bool {
        self.held.contains_key(source)
    }

    /// How many sources are held back.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Sources whose backends in the kernel belong to a former destination.
    pub(crate) fn replaced(&self) -> &BTreeSet<SourceName> {
        &self.replaced
    }

    /// Drops the replaced sources whose new destination is known.
    pub(crate) fn retain_replaced(&mut self, is_unknown: impl Fn(&SourceName) -> bool) {
        self.replaced.retain(|source| is_unknown(source));
    }

    /// Forgets `source`, whose route was removed.
    pub(crate) fn forget(&mut self, source: &SourceName) {
        self.held.remove(source);
        self.replaced.remove(source);
    }
}
