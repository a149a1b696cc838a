//! How many flows each guest's interface has, from the pins: with an agent and without one.

use std::{collections::BTreeMap, time::Duration};

use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use redirector_common::{
    names,
    packet::{
        flow::{BriefFlow, FlowKey},
        interface::{Interface, InterfaceFlows},
    },
};
use serde::{Deserialize, Serialize};

use crate::datapath::{
    error::DatapathError,
    pins::layout::{Pins, open_pinned_hash},
    sys::{lookup_hash_batch, monotonic_ns},
};

/// A SYN without an answer for longer than this is of a guest that has given up: Linux sends it
/// again after 64 s at most.
const SYN_WAIT: Duration = Duration::from_secs(64);

/// Entries that are read with one call.
const BATCH: usize = 4096;

/// The flows of a guest's interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCounts {
    /// Established flows.
    pub open: u64,
    /// Flows whose SYN has no answer yet.
    pub half_open: u64,
    /// New flows that were refused for want of room, since the interface was attached to.
    pub refused: u64,
}

/// The flows by the index of their interface; those of interfaces without a flow so far are left
/// out.
pub(crate) fn read(pins: &Pins) -> Result<BTreeMap<u32, FlowCounts>, DatapathError> {
    let settings = open_pinned_hash::<u32, Interface>(pins, names::INTERFACES)?;
    let flows = open_pinned_hash::<u32, InterfaceFlows>(pins, names::INTERFACE_FLOWS)?;
    let brief = open_pinned_hash::<FlowKey, BriefFlow>(pins, names::BRIEF_FLOWS)?;
    let mut counts = BTreeMap::new();
    for_each(&flows, names::INTERFACE_FLOWS, |index: u32, at| {
        counts.insert(
            index,
            FlowCounts { open: at.established(0), half_open: 0, refused: at.refused },
        );
    })?;
    if counts.is_empty() {
        return Ok(counts);
    }
    for_each(&settings, names::INTERFACES, |index, at: Interface| {
        if let Some(counts) = counts.get_mut(&index) {
            counts.open = counts.open.saturating_sub(at.expired);
        }
    })?;
    let now = monotonic_ns();
    for_each(&brief, names::BRIEF_FLOWS, |key: FlowKey, at: BriefFlow| {
        if key.direction == FlowKey::FORWARD
            && is_half_open(&at, now)
            && let Some(counts) = counts.get_mut(&key.interface)
        {
            counts.half_open += 1;
        }
    })?;
    Ok(counts)
}

fn is_half_open(at: &BriefFlow, now_ns: u64) -> bool {
    at.flow.state.is_half_open()
        && u128::from(now_ns.saturating_sub(at.flow.started_ns)) < SYN_WAIT.as_nanos()
}

/// Calls `visit` with each element, in batches: one call for each of 65,536 takes 30 ms.
fn for_each<K: Pod + Default, V: Pod + Default>(
    map: &HashMap<MapData, K, V>,
    name: &str,
    mut visit: impl FnMut(K, V),
) -> Result<(), DatapathError> {
    let (mut keys, mut values) = (vec![K::default(); BATCH], vec![V::default(); BATCH]);
    let mut position = None;
    loop {
        let (read, next) = lookup_hash_batch(map, position, &mut keys, &mut values)
            .map_err(|error| DatapathError::call(format!("read the map {name}"), error))?;
        keys.iter().zip(&values).take(read).for_each(|(key, value)| visit(*key, *value));
        position = next;
        if position.is_none() {
            return Ok(());
        }
    }
}
