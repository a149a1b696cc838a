//! Directories: what a glob matches, and what is in one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{config::is_glob, error::known};

fn is_dir(path: &Path) -> io::Result<bool> {
    Ok(known(fs::metadata(path))?.is_some_and(|metadata| metadata.is_dir()))
}

/// The directories below `base` that match `pattern`.
///
/// # Errors
///
/// If it is unknown which there are.
pub(super) fn expand(base: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    // A glob looks at each directory above a match, beginning with the root.
    let (folder, pattern) = descend(base, pattern);
    if !is_dir(&folder)? {
        return Ok(Vec::new());
    }
    if pattern.is_empty() {
        return Ok(vec![folder]);
    }
    let whole = format!("{}/{pattern}", glob::Pattern::escape(&folder.to_string_lossy()));
    let mut directories = Vec::new();
    for path in glob::glob(&whole).into_iter().flatten() {
        if let Some(path) = known(path.map_err(io::Error::from))?
            && is_dir(&path)?
        {
            directories.push(path);
        }
    }
    Ok(directories)
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

/// The folders in `folder`; none if it is gone or not to be read.
///
/// # Errors
///
/// If it is unknown which there are, since this host lacks descriptors or memory.
pub fn subfolders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in known(fs::read_dir(folder))?.into_iter().flatten() {
        if let Some(entry) = known(entry)?
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
        {
            folders.push(entry.path());
        }
    }
    Ok(folders)
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
            let found = expand(base.path(), pattern).expect("known");
            found.into_iter().map(below).collect::<Vec<_>>()
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

    #[test]
    fn without_descriptors_nothing_is_known() {
        let base = tempfile::tempdir().expect("a directory");
        fs::create_dir(base.path().join("a")).expect("made");
        testbed::without_descriptors(|| {
            for unknown in [expand(base.path(), "*"), subfolders(base.path())] {
                unknown.expect_err("the folder can't be opened");
            }
            assert_eq!(expand(base.path(), "a").expect("known").len(), 1);
        });
        assert_eq!(subfolders(base.path()).expect("known").len(), 1);
        assert_eq!(subfolders(&base.path().join("b")).expect("known"), [""; 0].map(PathBuf::from));
    }
}
