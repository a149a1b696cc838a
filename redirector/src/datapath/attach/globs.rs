//! Directories: what a glob matches, and what is in one.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The directories below `base` that match `pattern`.
pub(super) fn expand(base: &Path, pattern: &str) -> Vec<PathBuf> {
    let whole =
        format!("{}/{}", glob::Pattern::escape(&base.to_string_lossy()), pattern.trim_matches('/'));
    let paths = glob::glob(whole.trim_end_matches('/')).into_iter().flatten().flatten();
    paths.filter(|path| path.is_dir()).collect()
}

/// The folders in `folder`; none if it can't be read.
pub fn subfolders(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}
