//! The words of health: several elements for each backend, which its ports share.

use std::net::IpAddr;

use aya::maps::{Array, MapData};
use redirector_common::{
    addr::PortBe,
    backend::{BackendId, Health},
    names,
};

use crate::datapath::{
    error::DatapathError,
    maps::arrays::{read, read_each, write},
};

/// The words of one backend.
pub(crate) type HealthWords = [Health; WORDS];

/// The words of each backend.
pub(crate) const WORDS: usize = Health::WORDS as usize;

/// A backend of a route and a port of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteBackend {
    /// The route: its VIP's index.
    pub index: u32,
    /// The backend's address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

/// The elements of a backend.
pub(crate) fn elements(id: u32) -> std::ops::Range<u32> {
    id * Health::WORDS..(id + 1) * Health::WORDS
}

/// The words of backend `id`.
pub(crate) fn words(
    map: &Array<MapData, Health>,
    id: BackendId,
) -> Result<HealthWords, DatapathError> {
    let mut words = [Health::HEALTHY; WORDS];
    for (word, element) in words.iter_mut().zip(elements(id.0)) {
        *word = read(map, names::HEALTH, element)?;
    }
    Ok(words)
}

/// The words of many backends, whose IDs ascend.
pub(crate) fn each_words(
    map: &Array<MapData, Health>,
    ids: &[u32],
    mut each: impl FnMut(usize, Health),
) -> Result<(), DatapathError> {
    let elements: Vec<u32> = ids.iter().flat_map(|&id| elements(id)).collect();
    read_each(map, names::HEALTH, &elements, |at, word| each(at / WORDS, word))
}

/// Changes the health of backend `id` at `port`, if it is not healthy there.
pub(crate) fn change(
    map: &mut Array<MapData, Health>,
    (id, port): (BackendId, u16),
    next: impl FnOnce(Health) -> Health,
) -> Result<(), DatapathError> {
    let port = PortBe::new(port);
    let element = Health::index(id, port);
    let health = read(map, names::HEALTH, element)?;
    if health == Health::HEALTHY || health.port() != port {
        return Ok(());
    }
    write(map, names::HEALTH, element, next(health))
}
