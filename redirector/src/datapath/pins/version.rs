//! The version of the maps.

use redirector_common::{abi, names};

/// The version of the maps that a datapath creates: this binary's own, or another one in tests of
/// upgrades.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// See [`redirector_common::abi::ABI`].
    pub abi: u32,
    /// See [`redirector_common::abi::CHANGED`].
    pub changed: Vec<(&'static str, u32)>,
    /// Extra entries of maps, beyond those that the pool needs.
    pub extra_entries: Vec<(&'static str, u32)>,
}

impl Version {
    /// This binary's version.
    pub fn own() -> Self {
        Self { abi: abi::ABI, changed: abi::CHANGED.to_vec(), extra_entries: Vec::new() }
    }

    /// Whether `map` of version `older` has the same layout and meaning as in this one. The agent's
    /// map never does, since it identifies the version.
    pub(crate) fn is_compatible(&self, map: &str, older: u32) -> bool {
        let since = self
            .changed
            .iter()
            .find(|(changed, _)| *changed == map)
            .map_or(abi::FIRST, |&(_, since)| since);
        map != names::AGENT && since <= older
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_compatible_since_its_latest_change() {
        let version = Version { abi: 9, changed: vec![(names::SLOTS, 7)], extra_entries: vec![] };
        assert!(version.is_compatible(names::SLOTS, 7) && version.is_compatible(names::SLOTS, 8));
        assert!(!version.is_compatible(names::SLOTS, 6));
        assert!(
            version.is_compatible(names::ROUTES, abi::FIRST)
                && !version.is_compatible(names::ROUTES, abi::FIRST - 1)
        );
        assert!(!version.is_compatible(names::AGENT, 8));
    }
}
