//! Writes the tables of names that the packet datapath answers, and reads back what an earlier
//! agent left in them.
//!
//! A name is answered or left alone, never answered wrongly: each change is one element, which the
//! programs see whole. The hash of a name has a seed; if two names had the same hash, all names are
//! written by their hash with another seed before the seed changes.

use std::{
    collections::{BTreeMap, HashMap as StdHashMap, HashSet},
    thread,
    time::Duration,
};

use aya::maps::{Array, HashMap, LpmTrie, MapData, lpm_trie::Key};
use redirector_common::{
    names,
    packet::{
        name::{NAME_OCTETS, NameSettings, ReverseEntry, WildcardEntry},
        stats::PacketStats,
    },
};

use crate::{
    datapath::{
        error::DatapathError,
        load::object::Object,
        maps::{
            arrays::{read, read_each, write},
            exact_names::ExactNames,
            name_cgroups::{NameCgroup, NameCgroups},
            name_filter::{NameFilter, zones},
            published_names::{
                NameChange, Published, PublishedName, reverse_name, wildcard_entry,
                wildcard_sources, wire_name,
            },
        },
        sys,
    },
    route::{SourceName, Wildcard},
};

/// No packet is in a program for so long: after it, none has the old seed.
const PACKET_TIME: Duration = Duration::from_millis(10);

/// The key of a wildcard.
type Reversed = Key<[u8; NAME_OCTETS]>;

/// The tables of names.
pub(crate) struct NameMaps {
    exact: ExactNames,
    filter: NameFilter,
    wildcards: LpmTrie<MapData, [u8; NAME_OCTETS], WildcardEntry>,
    reverse: HashMap<MapData, u32, ReverseEntry>,
    settings: Array<MapData, NameSettings>,
    answers: Array<MapData, u64>,
    stats: Array<MapData, PacketStats>,
    cgroups: NameCgroups,
    seed: u64,
    /// As in the settings. Lengths that no zone has any more stay until the next agent starts.
    zones: u64,
    published: Published,
}

impl NameMaps {
    /// Takes the maps out of a loaded object and reads back what is in them.
    pub(crate) fn open(object: &mut Object) -> Result<Self, DatapathError> {
        let mut maps = Self {
            exact: ExactNames::open(object)?,
            filter: NameFilter::open(object)?,
            wildcards: object.trie(names::WILDCARDS)?,
            reverse: object.hash(names::REVERSE_NAMES)?,
            settings: object.array(names::NAME_SETTINGS)?,
            answers: object.array(names::ANSWERS)?,
            stats: object.array(names::PACKET_STATS)?,
            cgroups: NameCgroups::open(object.hash(names::CGROUPS)?)?,
            seed: 0,
            zones: 0,
            published: Published::default(),
        };
        maps.read_settings()?;
        maps.read_exact()?;
        maps.read_wildcards()?;
        maps.read_reverse()?;
        maps.filter.set(maps.seed, maps.published.names.keys())?;
        maps.set_zones(zones(maps.published.names.keys()))?;
        Ok(maps)
    }

    /// The seed is chosen when the tables are new.
    fn read_settings(&mut self) -> Result<(), DatapathError> {
        let mut settings = read(&self.settings, names::NAME_SETTINGS, 0)?;
        if settings.seed == 0 {
            settings.seed = random_seed();
            write(&mut self.settings, names::NAME_SETTINGS, 0, settings)?;
        }
        (self.seed, self.zones) = (settings.seed, settings.zones);
        Ok(())
    }

    /// Completes a change of the seed that an earlier agent began, and removes damaged elements.
    fn read_exact(&mut self) -> Result<(), DatapathError> {
        let mut stale = Vec::new();
        for element in self.exact.elements()? {
            match &element.name {
                Some((source, name)) if wire_name(source).hash(self.seed) == element.key => {
                    self.published.hashes.insert(element.key, source.clone());
                    self.published.put(source.clone(), *name);
                }
                _ => stale.push(element),
            }
        }
        for element in stale {
            if let Some((source, name)) = &element.name
                && !self.published.names.contains_key(source)
            {
                self.put_exact(source, *name)?;
                self.published.put(source.clone(), *name);
            }
            self.exact.remove_element(&element)?;
        }
        Ok(())
    }

    fn read_wildcards(&mut self) -> Result<(), DatapathError> {
        let mut damaged = Vec::new();
        for element in self.wildcards.iter() {
            let (key, entry) = element.map_err(|error| read_error(names::WILDCARDS, error))?;
            let is_whole = u64::from(key.prefix_len()) == u64::from(entry.length) * 8;
            match wildcard_sources(&key.data(), &entry).filter(|_| is_whole) {
                Some(sources) => {
                    sources.into_iter().for_each(|(source, name)| self.published.put(source, name));
                }
                None => damaged.push(key),
            }
        }
        for key in damaged {
            self.wildcards.remove(&key).map_err(|error| write_error(names::WILDCARDS, error))?;
        }
        Ok(())
    }

    /// Writes what is missing, and removes what belongs to no name.
    fn read_reverse(&mut self) -> Result<(), DatapathError> {
        let mut expected: BTreeMap<u32, &SourceName> = BTreeMap::new();
        for (source, name) in &self.published.names {
            if !name.pending {
                expected.insert(name.index, source);
            }
        }
        let mut wrong = Vec::new();
        for element in self.reverse.iter() {
            let (index, entry) =
                element.map_err(|error| read_error(names::REVERSE_NAMES, error))?;
            match expected.get(&index) {
                Some(&source) if reverse_name(source).reverse_entry() == entry => {
                    self.published.reverse.insert(index, source.clone());
                }
                Some(_) => {}
                None => wrong.push(index),
            }
        }
        let missing: Vec<(u32, SourceName)> = expected
            .into_iter()
            .filter(|(index, _)| !self.published.reverse.contains_key(index))
            .map(|(index, source)| (index, source.clone()))
            .collect();
        for (index, source) in missing {
            self.put_reverse(index, &source)?;
        }
        for index in wrong {
            self.reverse
                .remove(&index)
                .map_err(|error| write_error(names::REVERSE_NAMES, error))?;
        }
        Ok(())
    }

    /// The published names.
    pub(crate) fn names(&self) -> &BTreeMap<SourceName, PublishedName> {
        &self.published.names
    }

    /// How many of them have a backend.
    pub(crate) fn live(&self) -> usize {
        self.published.live()
    }

    /// Applies changes in order.
    pub(crate) fn publish(&mut self, changes: &[NameChange]) -> Result<(), DatapathError> {
        let mut at = 0;
        while at < changes.len() {
            at += self.put_new(&changes[at..])?;
            let Some(change) = changes.get(at) else { break };
            match change {
                NameChange::Put { source, name } => self.put(source, *name)?,
                NameChange::Remove { source } => self.remove(source)?,
            }
            at += 1;
        }
        Ok(())
    }

    /// Writes the exact names at the beginning of `changes` that are new, in batches. Returns how
    /// many changes that were.
    fn put_new(&mut self, changes: &[NameChange]) -> Result<usize, DatapathError> {
        let mut batch = Batch::default();
        for change in changes {
            let NameChange::Put { source, name } = change else { break };
            let is_new = !source.is_wildcard() && !self.published.names.contains_key(source);
            if !is_new || !batch.push(source, *name, self) {
                break;
            }
        }
        let count = batch.names.len();
        if count > 1 {
            batch.write(self)?;
            return Ok(count);
        }
        Ok(0)
    }

    fn put(&mut self, source: &SourceName, name: PublishedName) -> Result<(), DatapathError> {
        let before = self.published.names.get(source).copied();
        if before == Some(name) {
            return Ok(());
        }
        if source.is_wildcard() {
            self.put_wildcard(source, Some(name))?;
        } else {
            self.put_exact(source, name)?;
        }
        self.published.put(source.clone(), name);
        if let Some(before) = before
            && (before.index != name.index || name.pending)
        {
            self.remove_reverse(before.index, source)?;
        }
        if name.pending { Ok(()) } else { self.put_reverse(name.index, source) }
    }

    /// Writes the element of a wildcard's zone, with the zone's other wildcard.
    fn put_wildcard(
        &mut self,
        source: &SourceName,
        name: Option<PublishedName>,
    ) -> Result<(), DatapathError> {
        let (key, length) = wildcard_key(source);
        let other = self.published.names.get(&source.sibling()).copied();
        let entry = match source.wildcard() {
            Some(Wildcard::OneLabel) => wildcard_entry(length, other, name),
            _ => wildcard_entry(length, name, other),
        };
        let written = match entry {
            Some(entry) => {
                self.filter.add(self.seed, [source])?;
                self.set_zones(self.zones | zones([source]))?;
                self.wildcards.insert(&key, entry, 0)
            }
            None => self.wildcards.remove(&key),
        };
        written.map_err(|error| write_error(names::WILDCARDS, error))
    }

    /// Sets which lengths of zones the programs consider.
    fn set_zones(&mut self, zones: u64) -> Result<(), DatapathError> {
        if self.zones != zones {
            let settings = read(&self.settings, names::NAME_SETTINGS, 0)?;
            let changed = NameSettings { zones, ..settings };
            write(&mut self.settings, names::NAME_SETTINGS, 0, changed)?;
            self.zones = zones;
        }
        Ok(())
    }

    fn put_exact(&mut self, source: &SourceName, name: PublishedName) -> Result<(), DatapathError> {
        let wire = wire_name(source);
        if self.published.hashes.get(&wire.hash(self.seed)).is_some_and(|other| other != source) {
            self.reseed(source)?;
        }
        let key = wire.hash(self.seed);
        self.filter.add(self.seed, [source])?;
        self.exact.insert(key, source, name)?;
        self.published.hashes.insert(key, source.clone());
        Ok(())
    }

    fn remove(&mut self, source: &SourceName) -> Result<(), DatapathError> {
        let Some(name) = self.published.names.get(source).copied() else { return Ok(()) };
        if source.is_wildcard() {
            self.put_wildcard(source, None)?;
        } else {
            let key = wire_name(source).hash(self.seed);
            self.exact.remove(key, source)?;
            self.published.hashes.remove(&key);
        }
        self.published.remove(source);
        self.remove_reverse(name.index, source)
    }

    fn put_reverse(&mut self, index: u32, source: &SourceName) -> Result<(), DatapathError> {
        if self.published.reverse.get(&index) == Some(source) {
            return Ok(());
        }
        self.reverse
            .insert(index, reverse_name(source).reverse_entry(), 0)
            .map_err(|error| write_error(names::REVERSE_NAMES, error))?;
        self.published.reverse.insert(index, source.clone());
        Ok(())
    }

    /// Removes the source of a VIP, which may have another source by now.
    fn remove_reverse(&mut self, index: u32, source: &SourceName) -> Result<(), DatapathError> {
        if self.published.reverse.get(&index) != Some(source) {
            return Ok(());
        }
        self.reverse.remove(&index).map_err(|error| write_error(names::REVERSE_NAMES, error))?;
        self.published.reverse.remove(&index);
        Ok(())
    }

    /// Changes the seed so that `new` has a hash of its own. Each name is in the table by both
    /// hashes while the seed changes, so it is always found.
    fn reseed(&mut self, new: &SourceName) -> Result<(), DatapathError> {
        let (seed, mut hashes) = loop {
            let seed = random_seed();
            if let Some(hashes) = self.hashes_with(seed, new) {
                break (seed, hashes);
            }
        };
        for (&key, source) in hashes.iter().filter(|(_, source)| *source != new) {
            self.exact.insert(key, source, self.published.names[source])?;
        }
        self.filter.add(seed, self.published.names.keys())?;
        let settings = read(&self.settings, names::NAME_SETTINGS, 0)?;
        write(&mut self.settings, names::NAME_SETTINGS, 0, NameSettings { seed, ..settings })?;
        self.seed = seed;
        thread::sleep(PACKET_TIME);
        hashes.retain(|_, source| source != new);
        for (key, source) in std::mem::replace(&mut self.published.hashes, hashes) {
            self.exact.remove(key, &source)?;
        }
        Ok(())
    }

    /// The hashes of all exact names and of `new` with a seed. None if two are the same, or one is
    /// in the table already.
    fn hashes_with(&self, seed: u64, new: &SourceName) -> Option<StdHashMap<u64, SourceName>> {
        let exact = self.published.names.keys().filter(|source| !source.is_wildcard());
        let mut hashes = StdHashMap::new();
        for source in exact.chain([new]) {
            let key = wire_name(source).hash(seed);
            let taken = self.published.hashes.contains_key(&key)
                || hashes.insert(key, source.clone()).is_some_and(|other| other != *source);
            if taken {
                return None;
            }
        }
        Some(hashes)
    }

    /// Sets the TTL of answers, and whether there are any.
    pub(crate) fn set_settings(&mut self, ttl: u32, enabled: bool) -> Result<(), DatapathError> {
        let settings = read(&self.settings, names::NAME_SETTINGS, 0)?;
        let changed = NameSettings { ttl, enabled: enabled.into(), ..settings };
        write(&mut self.settings, names::NAME_SETTINGS, 0, changed)
    }

    /// Whether names are answered.
    pub(crate) fn is_enabled(&self) -> Result<bool, DatapathError> {
        read(&self.settings, names::NAME_SETTINGS, 0).map(|settings| settings.enabled != 0)
    }

    /// Sets the cgroups whose sockets on the host's own network get answers.
    pub(crate) fn set_cgroups(&mut self, cgroups: &[NameCgroup]) -> Result<(), DatapathError> {
        self.cgroups.set(cgroups, &mut self.settings)
    }

    /// The number of queries answered for the source of a VIP.
    pub(crate) fn answers(&self, index: u32) -> Result<u64, DatapathError> {
        read(&self.answers, names::ANSWERS, index)
    }

    /// As [`NameMaps::answers`], of the VIPs at `indices`, which ascend: a few calls for all.
    pub(crate) fn answers_of(&self, indices: &[u32]) -> Result<Vec<u64>, DatapathError> {
        let mut answers = Vec::with_capacity(indices.len());
        read_each(&self.answers, names::ANSWERS, indices, |_, count| answers.push(count))?;
        Ok(answers)
    }

    /// The counters of the packet datapath.
    pub(crate) fn stats(&self) -> Result<PacketStats, DatapathError> {
        read(&self.stats, names::PACKET_STATS, 0)
    }
}

/// New exact names, which are written with one call for each table.
#[derive(Default)]
struct Batch {
    names: Vec<(u64, SourceName, PublishedName)>,
    taken: HashSet<u64>,
}

impl Batch {
    /// Adds a new name, unless its hash is taken.
    fn push(&mut self, source: &SourceName, name: PublishedName, maps: &NameMaps) -> bool {
        let key = wire_name(source).hash(maps.seed);
        if maps.published.hashes.contains_key(&key) || !self.taken.insert(key) {
            return false;
        }
        self.names.push((key, source.clone(), name));
        true
    }

    fn write(self, maps: &mut NameMaps) -> Result<(), DatapathError> {
        maps.filter.add(maps.seed, self.names.iter().map(|(_, source, _)| source))?;
        maps.exact.insert_all(&self.names)?;
        for (key, source, name) in &self.names {
            maps.published.hashes.insert(*key, source.clone());
            maps.published.put(source.clone(), *name);
        }
        let live: Vec<_> = self.names.iter().filter(|(_, _, name)| !name.pending).collect();
        let indices: Vec<u32> = live.iter().map(|(_, _, name)| name.index).collect();
        let reverse: Vec<ReverseEntry> =
            live.iter().map(|(_, source, _)| reverse_name(source).reverse_entry()).collect();
        let written = sys::update_batch(&maps.reverse, &indices, &reverse);
        for (index, (_, source, _)) in indices.iter().zip(&live).take(written) {
            maps.published.reverse.insert(*index, source.clone());
        }
        for (_, source, name) in live.into_iter().skip(written) {
            maps.put_reverse(name.index, source)?;
        }
        Ok(())
    }
}

fn wildcard_key(source: &SourceName) -> (Reversed, u64) {
    let name = wire_name(source);
    let bits = u32::try_from(name.length() * 8).expect("a name has at most 254 octets");
    (Key::new(bits, name.reversed()), name.length())
}

/// 0 means that there is none yet.
fn random_seed() -> u64 {
    rand::random::<u64>() | 1
}

fn read_error(name: &str, error: aya::maps::MapError) -> DatapathError {
    DatapathError::call(format!("read {name}"), error)
}

fn write_error(name: &str, error: aya::maps::MapError) -> DatapathError {
    DatapathError::call(format!("write {name}"), error)
}
