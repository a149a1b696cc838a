//! The cgroups whose sockets on the host's own network get answers.

use std::collections::BTreeMap;

use aya::maps::{Array, HashMap, MapData};
use redirector_common::{names, packet::name::NameSettings};

use crate::datapath::{
    error::DatapathError,
    maps::arrays::{read, write},
};

/// The deepest level that the programs look at.
pub const MAX_CGROUP_LEVEL: u32 = 31;

/// A cgroup whose sockets get answers, with those of the cgroups below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameCgroup {
    /// Its ID: the inode of its directory.
    pub id: u64,
    /// Its level in the hierarchy; the root has 0.
    pub level: u32,
}

/// The table of these cgroups.
pub(super) struct NameCgroups {
    map: HashMap<MapData, u64, u32>,
    /// Their levels by their IDs.
    present: BTreeMap<u64, u32>,
}

impl NameCgroups {
    pub(super) fn open(map: HashMap<MapData, u64, u32>) -> Result<Self, DatapathError> {
        let present = map
            .iter()
            .collect::<Result<_, _>>()
            .map_err(|error| DatapathError::call(format!("read {}", names::CGROUPS), error))?;
        Ok(Self { map, present })
    }

    /// Replaces them. A cgroup that stays is found all the time: levels are added before cgroups,
    /// and removed after them.
    pub(super) fn set(
        &mut self,
        cgroups: &[NameCgroup],
        settings: &mut Array<MapData, NameSettings>,
    ) -> Result<(), DatapathError> {
        let wanted: BTreeMap<u64, u32> = cgroups
            .iter()
            .filter(|cgroup| cgroup.level <= MAX_CGROUP_LEVEL)
            .map(|cgroup| (cgroup.id, cgroup.level))
            .collect();
        let levels = |cgroups: &BTreeMap<u64, u32>| {
            cgroups.values().fold(0, |bits, level| bits | 1 << level)
        };
        let before = levels(&self.present);
        set_levels(settings, levels(&wanted) | before)?;
        let failed = |error| DatapathError::call(format!("write {}", names::CGROUPS), error);
        for (&id, &level) in &wanted {
            if self.present.get(&id) != Some(&level) {
                self.map.insert(id, level, 0).map_err(failed)?;
                self.present.insert(id, level);
            }
        }
        let gone: Vec<u64> =
            self.present.keys().copied().filter(|id| !wanted.contains_key(id)).collect();
        for id in gone {
            self.map.remove(&id).map_err(failed)?;
            self.present.remove(&id);
        }
        set_levels(settings, levels(&self.present))
    }
}

fn set_levels(
    settings: &mut Array<MapData, NameSettings>,
    levels: u64,
) -> Result<(), DatapathError> {
    let present = read(settings, names::NAME_SETTINGS, 0)?;
    if present.cgroup_levels == levels {
        return Ok(());
    }
    let changed = NameSettings { cgroup_levels: levels, ..present };
    write(settings, names::NAME_SETTINGS, 0, changed)
}
