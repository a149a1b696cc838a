//! The tables of exact names: short ones in one of small elements, longer ones in another.

use aya::maps::{HashMap, MapData, MapError};
use redirector_common::{
    names,
    packet::{
        name::{NameEntry, ShortEntry},
        names::Name,
    },
};

use crate::{
    datapath::{
        error::DatapathError,
        load::object::Object,
        maps::published_names::{PublishedName, exact_source, wire_name},
        sys,
    },
    route::SourceName,
};

/// The two tables.
pub(super) struct ExactNames {
    short: HashMap<MapData, u64, ShortEntry>,
    long: HashMap<MapData, u64, NameEntry>,
}

/// An element of a table.
pub(super) struct Element {
    /// The name's hash.
    pub(super) key: u64,
    is_short: bool,
    /// None if it is no name.
    pub(super) name: Option<(SourceName, PublishedName)>,
}

impl ExactNames {
    /// Takes the maps out of a loaded object.
    pub(super) fn open(object: &mut Object) -> Result<Self, DatapathError> {
        Ok(Self { short: object.hash(names::NAMES)?, long: object.hash(names::LONG_NAMES)? })
    }

    /// Every element.
    pub(super) fn elements(&self) -> Result<Vec<Element>, DatapathError> {
        let mut elements = Vec::new();
        for element in self.short.iter() {
            let (key, entry) = element.map_err(|error| read_error(names::NAMES, error))?;
            let source = exact_source(&entry.name, entry.length.into());
            let published = PublishedName::of(entry.index, entry.flags.into());
            let name = source.map(|source| (source, published));
            elements.push(Element { key, is_short: true, name });
        }
        for element in self.long.iter() {
            let (key, entry) = element.map_err(|error| read_error(names::LONG_NAMES, error))?;
            let source = exact_source(&entry.name, entry.length);
            let published = PublishedName::of(entry.index, entry.flags);
            let name = source.map(|source| (source, published));
            elements.push(Element { key, is_short: false, name });
        }
        Ok(elements)
    }

    /// Writes the element of a source by the hash of its name.
    pub(super) fn insert(
        &mut self,
        key: u64,
        source: &SourceName,
        name: PublishedName,
    ) -> Result<(), DatapathError> {
        let wire = wire_name(source);
        match wire.short_entry(name.index, name.flags()) {
            Some(entry) => {
                self.short.insert(key, entry, 0).map_err(|error| write_error(names::NAMES, error))
            }
            None => self
                .long
                .insert(key, wire.entry(name.index, name.flags()), 0)
                .map_err(|error| write_error(names::LONG_NAMES, error)),
        }
    }

    /// Removes a source by the hash of its name.
    pub(super) fn remove(&mut self, key: u64, source: &SourceName) -> Result<(), DatapathError> {
        self.remove_from(wire_name(source).is_short(), key)
    }

    /// Removes what [`ExactNames::elements`] returned.
    pub(super) fn remove_element(&mut self, element: &Element) -> Result<(), DatapathError> {
        self.remove_from(element.is_short, element.key)
    }

    fn remove_from(&mut self, is_short: bool, key: u64) -> Result<(), DatapathError> {
        if is_short {
            return self.short.remove(&key).map_err(|error| write_error(names::NAMES, error));
        }
        self.long.remove(&key).map_err(|error| write_error(names::LONG_NAMES, error))
    }

    /// Writes new names, with one call for each table. What the kernel does not take in one call,
    /// as before 5.6, is written one by one.
    pub(super) fn insert_all(
        &mut self,
        names: &[(u64, SourceName, PublishedName)],
    ) -> Result<(), DatapathError> {
        let (mut short, mut long) = (Batch::default(), Batch::default());
        for (number, (key, source, name)) in names.iter().enumerate() {
            let wire: Name = wire_name(source);
            match wire.short_entry(name.index, name.flags()) {
                Some(entry) => short.push(number, *key, entry),
                None => long.push(number, *key, wire.entry(name.index, name.flags())),
            }
        }
        let rest = [short.write(&self.short), long.write(&self.long)].concat();
        for number in rest {
            let (key, source, name) = &names[number];
            self.insert(*key, source, *name)?;
        }
        Ok(())
    }
}

/// Elements of one table, each with its number among all names.
struct Batch<V> {
    numbers: Vec<usize>,
    keys: Vec<u64>,
    entries: Vec<V>,
}

impl<V> Default for Batch<V> {
    fn default() -> Self {
        Self { numbers: Vec::new(), keys: Vec::new(), entries: Vec::new() }
    }
}

impl<V: aya::Pod> Batch<V> {
    fn push(&mut self, number: usize, key: u64, entry: V) {
        self.numbers.push(number);
        self.keys.push(key);
        self.entries.push(entry);
    }

    /// Returns the numbers of those that are not written.
    fn write(mut self, map: &HashMap<MapData, u64, V>) -> Vec<usize> {
        if self.keys.is_empty() {
            return Vec::new();
        }
        let written = sys::update_batch(map, &self.keys, &self.entries);
        self.numbers.split_off(written)
    }
}

fn read_error(name: &str, error: MapError) -> DatapathError {
    DatapathError::call(format!("read {name}"), error)
}

fn write_error(name: &str, error: MapError) -> DatapathError {
    DatapathError::call(format!("write {name}"), error)
}
