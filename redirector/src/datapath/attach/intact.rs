//! Directories of pins that need no healing, so that one call replaces a list of their names.

use std::collections::BTreeMap;

use crate::datapath::pins::mark::Mark;

/// A directory of pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PinDir {
    /// That of all versions, intact without a newer one.
    Versions,
    /// That of the maps, intact with the pins of all.
    Maps,
    /// That of the cgroup with this ID, intact with the pins of all programs.
    Cgroup(u64),
}

/// The intact directories, each with its mark from when it was found so.
#[derive(Debug, Default)]
pub(super) struct Intact(BTreeMap<PinDir, Mark>);

impl Intact {
    /// Whether a directory with this mark is as it was when it was intact.
    pub(super) fn has(&self, dir: PinDir, mark: Option<Mark>) -> bool {
        mark.is_some() && mark == self.0.get(&dir).copied()
    }

    /// Notes the mark that a directory had before it was found intact; without one it is forgotten.
    pub(super) fn note(&mut self, dir: PinDir, mark: Option<Mark>) {
        match mark {
            Some(mark) => drop(self.0.insert(dir, mark)),
            None => self.forget(dir),
        }
    }

    /// Forgets a directory.
    pub(super) fn forget(&mut self, dir: PinDir) {
        self.0.remove(&dir);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        path::Path,
        time::{Duration, SystemTime},
    };

    use super::*;

    /// The mark of a directory that was changed so many seconds ago.
    fn mark(dir: &Path, seconds: u64) -> Option<Mark> {
        let changed_at = SystemTime::now() - Duration::from_secs(seconds);
        File::open(dir).and_then(|dir| dir.set_modified(changed_at)).expect("a time");
        let mark = Mark::of(dir);
        assert!(mark.is_some());
        mark
    }

    #[test]
    fn a_directory_is_intact_until_it_changes() {
        let dir = tempfile::tempdir().expect("a directory");
        let (before, after) = (mark(dir.path(), 20), mark(dir.path(), 10));
        let mut intact = Intact::default();
        assert!(!intact.has(PinDir::Maps, before), "it is not known");
        intact.note(PinDir::Maps, before);
        intact.note(PinDir::Cgroup(7), before);
        assert!(intact.has(PinDir::Maps, before) && intact.has(PinDir::Cgroup(7), before));
        assert!(!intact.has(PinDir::Versions, before) && !intact.has(PinDir::Cgroup(8), before));
        assert!(!intact.has(PinDir::Maps, after) && !intact.has(PinDir::Maps, None));
        assert!(!intact.has(PinDir::Versions, None), "what is not known is not intact");
        intact.note(PinDir::Maps, None);
        assert!(!intact.has(PinDir::Maps, before) && intact.has(PinDir::Cgroup(7), before));
        intact.forget(PinDir::Cgroup(7));
        assert!(!intact.has(PinDir::Cgroup(7), before));
    }
}
