//! The addresses of one family of a name, and when negative answers remove them.

use std::{fmt, net::IpAddr};

use super::lookup::Family;

/// Consecutive negative answers that remove a family's addresses: a single one may be a mistake of
/// the resolver, or of a zone that is being changed.
const DENIALS_TO_REMOVE: u32 = 3;

/// The addresses of one family.
#[derive(Debug)]
pub(super) struct FamilyAddresses {
    family: Family,
    /// Sorted, without duplicates.
    addresses: Vec<IpAddr>,
    /// Consecutive authoritative answers without an address.
    denials: u32,
}

impl FamilyAddresses {
    pub(super) fn new(family: Family) -> Self {
        Self { family, addresses: Vec::new(), denials: 0 }
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// An answer with addresses.
    pub(super) fn replace(&mut self, mut addresses: Vec<IpAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        // The list lives as long as the route, and most have one or two addresses.
        addresses.shrink_to_fit();
        self.addresses = addresses;
        self.denials = 0;
    }

    /// An authoritative answer without an address.
    pub(super) fn deny(&mut self) {
        self.denials = self.denials.saturating_add(1);
        if self.is_denied() {
            self.addresses.clear();
        }
    }

    pub(super) fn denials(&self) -> u32 {
        self.denials
    }

    /// Whether enough consecutive answers had no address.
    pub(super) fn is_denied(&self) -> bool {
        self.denials >= DENIALS_TO_REMOVE
    }

    /// A failure: the next negative answer is the first one again.
    pub(super) fn reset_denials(&mut self) {
        self.denials = 0;
    }

    /// The message for a negative answer that changed nothing yet.
    pub(super) fn explain_denial(&self, reason: &str, effect: fmt::Arguments<'_>) -> String {
        let number = self.denials;
        format!("{reason} (answer {number} of {DENIALS_TO_REMOVE} that {effect})")
    }
}
