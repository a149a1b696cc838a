//! Notices changes of the configuration file, including symlink swaps of a ConfigMap.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Identifies the content of a path by metadata: device, inode, length and time of change. None if
/// there is no file.
type Fingerprint = Option<(u64, u64, u64, i64, i64)>;

/// Compares the content of a file with the content that was read.
#[derive(Debug)]
pub(crate) struct FileWatch {
    path: PathBuf,
    read: Fingerprint,
    last_seen: Fingerprint,
}

impl FileWatch {
    /// Watches `path`, whose present content is about to be read.
    pub(crate) fn new(path: &Path) -> Self {
        let now = fingerprint(path);
        Self { path: path.to_owned(), read: now, last_seen: now }
    }

    /// The present content is about to be read.
    pub(crate) fn mark_read(&mut self) {
        self.read = fingerprint(&self.path);
        self.last_seen = self.read;
    }

    /// Whether the content differs from what was read, and was the same at the last poll: a file
    /// that is being written is left alone until the next poll.
    pub(crate) fn poll(&mut self) -> bool {
        let before = std::mem::replace(&mut self.last_seen, fingerprint(&self.path));
        self.last_seen != self.read && self.last_seen == before
    }
}

fn fingerprint(path: &Path) -> Fingerprint {
    // Follows links: a ConfigMap is a link into a directory that is swapped as a whole.
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_settled_change_is_reported_until_it_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("redirector.toml");
        fs::write(&path, "a").expect("written");
        let mut watch = FileWatch::new(&path);
        assert!(!watch.poll());
        fs::write(&path, "ab").expect("written");
        assert!(!watch.poll(), "just changed");
        assert!(watch.poll(), "at rest");
        watch.mark_read();
        assert!(!watch.poll());
    }

    #[test]
    fn a_swapped_directory_behind_a_link_is_a_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        for (name, text) in [("one", "same"), ("two", "same")] {
            fs::create_dir(at(name)).expect("a directory");
            fs::write(at(name).join("redirector.toml"), text).expect("written");
        }
        symlink("one", at("..data")).expect("a link");
        symlink("..data/redirector.toml", at("redirector.toml")).expect("a link");
        let mut watch = FileWatch::new(&at("redirector.toml"));
        symlink("two", at("..new")).expect("a link");
        fs::rename(at("..new"), at("..data")).expect("swapped");
        assert!(!watch.poll());
        assert!(watch.poll());
    }

    #[test]
    fn a_removed_file_is_a_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("redirector.toml");
        fs::write(&path, "a").expect("written");
        let mut watch = FileWatch::new(&path);
        fs::remove_file(&path).expect("removed");
        watch.poll();
        assert!(watch.poll());
    }
}
