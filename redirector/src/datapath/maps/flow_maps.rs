//! The filter of backends' addresses: it saves the programs the look-up of a flow for packets to a
//! guest that come from anywhere else.

use std::net::IpAddr;

use aya::maps::{Array, MapData};
use redirector_common::{
    names,
    packet::flow::{FILTER_WORDS, filter_bit},
};

use crate::datapath::{
    address,
    error::DatapathError,
    load::object::Object,
    maps::arrays::{read_each, write},
};

/// The filter. Bits are never cleared: a flow may outlive its backend's place in the plan.
pub(crate) struct BackendFilter {
    map: Array<MapData, u64>,
    /// What the map contains.
    words: Vec<u64>,
}

impl BackendFilter {
    /// Takes the map out of a loaded object, with the bits that an earlier agent has set.
    pub(crate) fn from_object(object: &mut Object) -> Result<Self, DatapathError> {
        Self::new(object.array(names::BACKEND_FILTER)?)
    }

    /// From the map.
    pub(crate) fn new(map: Array<MapData, u64>) -> Result<Self, DatapathError> {
        let all: Vec<u32> = (0..FILTER_WORDS).collect();
        let mut words = vec![0; all.len()];
        read_each(&map, names::BACKEND_FILTER, &all, |at, word| words[at] = word)?;
        Ok(Self { map, words })
    }

    /// Adds a backend's address, before any route refers to it.
    pub(crate) fn add(&mut self, address: IpAddr) -> Result<(), DatapathError> {
        let bit = filter_bit(address::ip(address));
        let (index, mask) = (bit / u64::BITS, 1 << (bit % u64::BITS));
        let word = &mut self.words[index as usize];
        if *word & mask == 0 {
            write(&mut self.map, names::BACKEND_FILTER, index, *word | mask)?;
            *word |= mask;
        }
        Ok(())
    }
}
