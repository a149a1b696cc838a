//! Which version's tables are made and adopted.

use redirector_common::{abi, names};

/// The version of tables that a datapath makes: this binary's own. A test of upgrades plays an
/// older or a younger binary with another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// See [`redirector_common::abi::ABI`].
    pub abi: u32,
    /// See [`redirector_common::abi::CHANGED`].
    pub changed: Vec<(&'static str, u32)>,
    /// Entries that tables have beyond those that the pool needs.
    pub extra_entries: Vec<(&'static str, u32)>,
}

impl Version {
    /// This binary's.
    pub fn own() -> Self {
        Self { abi: abi::ABI, changed: abi::CHANGED.to_vec(), extra_entries: Vec::new() }
    }

    /// Whether `table` as version `older` made it has the layout and the meaning that it has in
    /// this one. The agent's never does: it says whose tables these are.
    pub(crate) fn understands(&self, table: &str, older: u32) -> bool {
        let since = self
            .changed
            .iter()
            .find(|(changed, _)| *changed == table)
            .map_or(abi::FIRST, |&(_, since)| since);
        table != names::AGENT && since <= older
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_understood_from_its_latest_change_on() {
        let version = Version { abi: 9, changed: vec![(names::SLOTS, 7)], extra_entries: vec![] };
        assert!(version.understands(names::SLOTS, 7) && version.understands(names::SLOTS, 8));
        assert!(!version.understands(names::SLOTS, 6));
        assert!(
            version.understands(names::ROUTES, abi::FIRST)
                && !version.understands(names::ROUTES, abi::FIRST - 1)
        );
        assert!(!version.understands(names::AGENT, 8));
    }
}
