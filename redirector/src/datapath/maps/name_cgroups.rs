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
    /// Its level in the hierarchy; the root has 0. None if this process can't know it: the programs
    /// then look for it at every level.
    pub level: Option<u32>,
}

impl NameCgroup {
    /// What the table has for an unknown level.
    const UNKNOWN: u32 = u32::MAX;

    fn is_within_reach(&self) -> bool {
        self.level.is_none_or(|level| level <= MAX_CGROUP_LEVEL)
    }
}

/// The bits of the levels at which the programs look for cgroups with `levels`.
fn bits(levels: impl Iterator<Item = u32>) -> u64 {
    const EVERY: u64 = (1 << (MAX_CGROUP_LEVEL + 1)) - 1;
    let bits = |level| if level == NameCgroup::UNKNOWN { EVERY } else { 1_u64 << level };
    levels.fold(0, |all, level| all | bits(level))
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
            .filter(|cgroup| cgroup.is_within_reach())
            .map(|cgroup| (cgroup.id, cgroup.level.unwrap_or(NameCgroup::UNKNOWN)))
            .collect();
        let levels = |cgroups: &BTreeMap<u64, u32>| bits(cgroups.values().copied());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_level_is_looked_for_at_every_one() {
        assert_eq!(bits([0, 3].into_iter()), 0b1001);
        assert_eq!(bits([3, NameCgroup::UNKNOWN].into_iter()), u64::from(u32::MAX));
        let at = |level| NameCgroup { id: 7, level };
        assert!(at(None).is_within_reach() && at(Some(31)).is_within_reach());
        assert!(!at(Some(32)).is_within_reach());
    }
}
