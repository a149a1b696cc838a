//! What shows that a directory of pins still has the names that it had: one call instead of a list.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

/// After this long the next change has another time: those within a jiffy, 10 ms at most
/// (`CONFIG_HZ=100`), have the same.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// A directory, and when a name in it was added, removed or renamed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    device: u64,
    inode: u64,
    changed_at: SystemTime,
}

impl Mark {
    /// The mark of a directory. None if it has just changed: another change would have the same
    /// time. Take it before the names are listed.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        let metadata = fs::metadata(folder).ok()?;
        let changed_at = metadata.modified().ok()?;
        // None if the clock was set back meanwhile.
        let age = SystemTime::now().duration_since(changed_at).ok()?;
        (age >= SETTLED_AFTER).then_some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_mark_differs_after_each_change() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("a");
        File::create(&path).expect("a file");
        assert_eq!(Mark::of(folder.path()), None, "it has just changed");
        let set_time = |time| {
            File::open(folder.path()).and_then(|file| file.set_modified(time)).expect("a time")
        };
        set_time(SystemTime::now() - Duration::from_secs(10));
        let mark = Mark::of(folder.path());
        assert!(mark.is_some());
        assert_eq!(Mark::of(folder.path()), mark);
        fs::remove_file(&path).expect("removed");
        assert_eq!(Mark::of(folder.path()), None);
        set_time(SystemTime::now() - Duration::from_secs(5));
        assert_ne!(Mark::of(folder.path()), mark);
        set_time(SystemTime::now() + Duration::from_secs(5));
        assert_eq!(Mark::of(folder.path()), None, "the clock was set back");
    }
}
