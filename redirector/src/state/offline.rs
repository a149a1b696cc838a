//! The leases on disk, for commands that run without the agent.

use std::{collections::BTreeMap, path::Path};

use super::{journal, lease_change::LeaseChange, leases};
use crate::route::SourceName;

/// Which source has the VIP of which index, as far as that can be read in `folder`; nothing is
/// written, so that it works without the agent.
pub fn leased(folder: &Path) -> BTreeMap<u32, SourceName> {
    let mut leased = leases::leased(&folder.join("leases.json"));
    for change in journal::read(&folder.join("journal"))
        .into_iter()
        .flat_map(|found| found.entries)
        .flat_map(|entry| entry.leases.into_owned())
    {
        match change {
            LeaseChange::Leased(source, index) => drop(leased.insert(index, source)),
            LeaseChange::Freed(_, index) => drop(leased.remove(&index)),
        }
    }
    leased
}
