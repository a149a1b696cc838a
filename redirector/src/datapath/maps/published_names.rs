//! The names that the packet datapath answers, as the agent knows them.

use std::collections::{BTreeMap, HashMap};

use redirector_common::packet::{
    name::{NameEntry, WildcardEntry},
    names::Name,
};

use crate::route::{SourceName, Wildcard};

/// How queries for a source are answered by packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedName {
    /// The VIP's index in the pool.
    pub index: u32,
    /// Whether the answer is SERVFAIL, since the route has no backend yet.
    pub pending: bool,
}

impl PublishedName {
    /// A name with this VIP.
    pub const fn live(index: u32) -> Self {
        Self { index, pending: false }
    }

    /// A name whose route has no backend yet.
    pub const fn pending(index: u32) -> Self {
        Self { index, pending: true }
    }

    pub(super) const fn of(index: u32, flags: u32) -> Self {
        Self { index, pending: flags & NameEntry::FLAG_PENDING != 0 }
    }

    pub(super) const fn flags(self) -> u32 {
        if self.pending { NameEntry::FLAG_PENDING } else { 0 }
    }
}

/// A change of the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameChange {
    /// Publishes a source, or replaces what it is answered with.
    Put {
        /// The source.
        source: SourceName,
        /// Its answer.
        name: PublishedName,
    },
    /// Withdraws a source: queries for it are left alone. A source that is not published is no
    /// error.
    Remove {
        /// The source.
        source: SourceName,
    },
}

/// A source in the form of the tables: a wildcard without its `*`.
pub(super) fn wire_name(source: &SourceName) -> Name {
    Name::new(source.name()).expect("SourceName has labels of 1 to 63 characters, 253 in all")
}

/// The name of a VIP's reverse entry.
pub(super) fn reverse_name(source: &SourceName) -> Name {
    let name = wire_name(source);
    match source.wildcard() {
        Some(wildcard) => name
            .below(wildcard.label())
            .expect("SourceName counts the wildcard among its 253 characters"),
        None => name,
    }
}

/// The source of an element; none for what is no source.
pub(super) fn exact_source(words: &[u64], length: u64) -> Option<SourceName> {
    Name::from_words(words, length)?.text()?.parse().ok()
}

/// The wildcards of a zone's element.
pub(super) fn wildcard_sources(
    reversed: &[u8],
    entry: &WildcardEntry,
) -> Option<Vec<(SourceName, PublishedName)>> {
    let reversed = reversed.get(..usize::try_from(entry.length).ok()?)?;
    let zone = Name::from_reversed(reversed)?.text()?;
    let source = |wildcard: Wildcard| format!("{}.{zone}", wildcard.label()).parse().ok();
    let published = |index, pending| PublishedName { index, pending: entry.flags & pending != 0 };
    let mut sources = Vec::new();
    if entry.flags & WildcardEntry::FLAG_NOT_DEEP == 0 {
        let name = published(entry.index, WildcardEntry::FLAG_PENDING);
        sources.push((source(Wildcard::AnyDepth)?, name));
    }
    if entry.flags & WildcardEntry::FLAG_LABEL != 0 {
        let name = published(entry.label_index, WildcardEntry::FLAG_LABEL_PENDING);
        sources.push((source(Wildcard::OneLabel)?, name));
    }
    (!sources.is_empty()).then_some(sources)
}

/// The element of a zone with these wildcards; none without any.
pub(super) fn wildcard_entry(
    length: u64,
    deep: Option<PublishedName>,
    label: Option<PublishedName>,
) -> Option<WildcardEntry> {
    let length = u32::try_from(length).ok()?;
    let mut entry = WildcardEntry { length, ..WildcardEntry::default() };
    match deep {
        Some(name) => (entry.index, entry.flags) = (name.index, name.flags()),
        None => entry.flags = WildcardEntry::FLAG_NOT_DEEP,
    }
    if let Some(name) = label {
        entry.label_index = name.index;
        entry.flags |= WildcardEntry::FLAG_LABEL;
        entry.flags |= if name.pending { WildcardEntry::FLAG_LABEL_PENDING } else { 0 };
    }
    (deep.is_some() || label.is_some()).then_some(entry)
}

/// What is in the tables.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Changed by [`Published::put`] and [`Published::remove`] only.
    pub(super) names: BTreeMap<SourceName, PublishedName>,
    /// How many of the names have a backend.
    live: usize,
    /// The exact sources by their hash with the present seed.
    pub(super) hashes: HashMap<u64, SourceName>,
    /// The sources of VIPs.
    pub(super) reverse: HashMap<u32, SourceName>,
}

impl Published {
    /// How many of the names have a backend, without a walk through a full pool.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn put(&mut self, source: SourceName, name: PublishedName) {
        let before = self.names.insert(source, name);
        self.live -= usize::from(before.is_some_and(|name| !name.pending));
        self.live += usize::from(!name.pending);
    }

    pub(super) fn remove(&mut self, source: &SourceName) {
        let before = self.names.remove(source);
        self.live -= usize::from(before.is_some_and(|name| !name.pending));
    }
}
