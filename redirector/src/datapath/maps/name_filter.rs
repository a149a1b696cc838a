//! The filter of names: it saves the programs the look-ups for names that are not mapped.

use std::collections::BTreeMap;

use aya::maps::{Array, MapData};
use redirector_common::{names, packet::name_filter};

use crate::{
    datapath::{
        error::DatapathError,
        load::object::Object,
        maps::{
            arrays::{read_each, write_all},
            published_names::wire_name,
        },
    },
    route::SourceName,
};

/// The filter. Bits of names that are gone stay until the next agent starts: they cost look-ups,
/// and change no answer.
pub(super) struct NameFilter {
    map: Array<MapData, u64>,
    /// What the map contains.
    words: Vec<u64>,
}

impl NameFilter {
    /// Takes the map out of a loaded object, with what an earlier agent has written.
    pub(super) fn open(object: &mut Object) -> Result<Self, DatapathError> {
        let map: Array<MapData, u64> = object.array(names::NAME_FILTER)?;
        let all: Vec<u32> = (0..map.len()).collect();
        let mut words = vec![0; all.len()];
        read_each(&map, names::NAME_FILTER, &all, |at, word| words[at] = word)?;
        Ok(Self { map, words })
    }

    /// Adds sources, before they are in their tables.
    pub(super) fn add<'a>(
        &mut self,
        seed: u64,
        sources: impl IntoIterator<Item = &'a SourceName>,
    ) -> Result<(), DatapathError> {
        let mut changed = BTreeMap::new();
        for (word, bit) in self.places(seed, sources) {
            let present = changed.get(&word).copied().unwrap_or(self.words[word as usize]);
            if present & bit == 0 {
                changed.insert(word, present | bit);
            }
        }
        self.write(changed)
    }

    /// Leaves the bits of these sources only: all that are in the tables.
    pub(super) fn set<'a>(
        &mut self,
        seed: u64,
        sources: impl IntoIterator<Item = &'a SourceName>,
    ) -> Result<(), DatapathError> {
        let mut words = vec![0; self.words.len()];
        for (word, bit) in self.places(seed, sources) {
            words[word as usize] |= bit;
        }
        let changed = (0..).zip(words).filter(|&(at, word)| self.words[at as usize] != word);
        self.write(changed.collect())
    }

    /// The word and the bit of each source. A zone that is too short for the filter has none.
    fn places<'a>(
        &self,
        seed: u64,
        sources: impl IntoIterator<Item = &'a SourceName>,
    ) -> Vec<(u32, u64)> {
        let last = u32::try_from(self.words.len()).map_or(0, |words| words.saturating_sub(1));
        let hashes = sources.into_iter().filter_map(move |source| {
            let name = wire_name(source);
            if source.is_wildcard() { name.zone_hash(seed) } else { Some(name.hash(seed)) }
        });
        hashes.map(|hash| name_filter::place(hash, last)).collect()
    }

    fn write(&mut self, changed: BTreeMap<u32, u64>) -> Result<(), DatapathError> {
        let (at, values): (Vec<u32>, Vec<u64>) = changed.iter().unzip();
        write_all(&mut self.map, names::NAME_FILTER, (&at, &values))
            .map_err(|stopped| stopped.error)?;
        for (at, word) in changed {
            self.words[at as usize] = word;
        }
        Ok(())
    }
}

/// The lengths of the wildcards' zones among these sources: bits of [`name_filter::lengths`].
pub(super) fn zones<'a>(sources: impl IntoIterator<Item = &'a SourceName>) -> u64 {
    let wildcards = sources.into_iter().filter(|source| source.is_wildcard());
    wildcards.fold(0, |bits, source| bits | name_filter::lengths::of(wire_name(source).length()))
}
