//! Directories: what a glob matches, and what is in one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::config::is_glob;

/// The directories below `base` that match `pattern`.
pub(super) fn expand(base: &Path, pattern: &str) -> Vec<PathBuf> {
    // A glob looks at each directory above a match, beginning with the root.
    let (folder, pattern) = descend(base, pattern);
    if !folder.is_dir() {
        return Vec::new();
    }
    if pattern.is_empty() {
        return vec![folder];
    }
    let whole = format!("{}/{pattern}", glob::Pattern::escape(&folder.to_string_lossy()));
    let paths = glob::glob(&whole).into_iter().flatten().flatten();
    paths.filter(|path| path.is_dir()).collect()
}

/// The folder below `base` that a pattern begins with, and the rest, which begins with a glob.
fn descend<'a>(base: &Path, pattern: &'a str) -> (PathBuf, &'a str) {
    let (mut folder, mut rest) = (base.to_owned(), pattern.trim_matches('/'));
    while !rest.is_empty() {
        let (first, others) = rest.split_once('/').unwrap_or((rest, ""));
        if is_glob(first) {
            break;
        }
        folder.push(first);
        rest = others.trim_start_matches('/');
    }
    (folder, rest)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_with_and_without_globs() {
        let base = tempfile::tempdir().expect("a directory");
        for folder in ["a/x/deep", "a/y", "b"] {
            fs::create_dir_all(base.path().join(folder)).expect("made");
        }
        fs::write(base.path().join("a/file"), "").expect("written");
        let matches = |pattern: &str| {
            let below = |path: PathBuf| {
                path.strip_prefix(base.path()).expect("below").display().to_string()
            };
            expand(base.path(), pattern).into_iter().map(below).collect::<Vec<_>>()
        };
        assert_eq!(matches(""), [""]);
        assert_eq!(matches("/a/x/"), ["a/x"]);
        assert_eq!(matches("a/*"), ["a/x", "a/y"]);
        assert_eq!(matches("a//x/d[e]ep"), ["a/x/deep"]);
        assert_eq!(matches("*/x/deep"), ["a/x/deep"]);
        for missing in ["c", "c/*", "a/file", "a/file/*", "a/x/deep/*"] {
            assert_eq!(matches(missing), [""; 0], "{missing}");
        }
    }
}
