//! What a glob matches below a directory.

use std::path::{Path, PathBuf};

/// The directories below `base` that match `pattern`.
pub(super) fn expand(base: &Path, pattern: &str) -> Vec<PathBuf> {
    let whole =
        format!("{}/{}", glob::Pattern::escape(&base.to_string_lossy()), pattern.trim_matches('/'));
    let paths = glob::glob(whole.trim_end_matches('/')).into_iter().flatten().flatten();
    paths.filter(|path| path.is_dir()).collect()
}
