//! The text files of the workspace.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// Folders that contain no prose of ours: build output, inputs of the fuzzers, recorded
/// measurements.
const SKIPPED_FOLDERS: &[&str] = &[".git", "target", "seeds", "results"];

/// Files that others wrote.
const SKIPPED_FILES: &[&str] = &["Cargo.lock", "LICENSE-APACHE", "LICENSE-GPL", "LICENSE-MIT"];

/// A text file of the workspace.
#[derive(Clone, Debug)]
pub struct TextFile {
    /// Relative to the workspace's root.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

impl TextFile {
    /// Whether it is Rust source.
    pub fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "rs")
    }
}

/// Every UTF-8 file below the workspace's root, in order of their paths.
///
/// # Errors
/// Fails if a folder can't be listed or a file can't be read.
pub fn of_workspace(root: &Path) -> anyhow::Result<Vec<TextFile>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("failed to list {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("failed to list {}", folder.display()))?;
            let name = entry.file_name();
            let kind = entry.file_type().context("failed to read a file's type")?;
            if kind.is_dir() && !SKIPPED_FOLDERS.iter().any(|skipped| name == *skipped) {
                folders.push(entry.path());
            } else if kind.is_file() && !is_skipped(&name.to_string_lossy()) {
                files.extend(read(&entry.path(), root)?);
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Whether a file is skipped, as are those that insta writes next to a snapshot that differs.
fn is_skipped(name: &str) -> bool {
    SKIPPED_FILES.contains(&name) || name.ends_with(".snap.new")
}

/// Reads a file; `None` if it is not UTF-8.
fn read(path: &Path, root: &Path) -> anyhow::Result<Option<TextFile>> {
    let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    let relative = path.strip_prefix(root).unwrap_or(path).to_owned();
    Ok(String::from_utf8(bytes).ok().map(|text| TextFile { path: relative, text }))
}
