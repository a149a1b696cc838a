//! The crates of the workspace: one per target, as cargo lists them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// A crate: a library, a binary, an integration test, an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The package it belongs to.
    pub package: String,
    /// `lib`, `bin`, `test`, `example`, `custom-build`.
    pub kind: String,
    /// The crate's own name.
    pub name: String,
    /// Its root file.
    pub root: PathBuf,
}

impl Target {
    /// `redirector (lib)`, `redirector (test agent)`.
    pub fn label(&self) -> String {
        if self.kind == "lib" {
            format!("{} (lib)", self.package)
        } else {
            format!("{} ({} {})", self.package, self.kind, self.name)
        }
    }
}

/// Every target of the workspace with this root.
///
/// # Errors
/// Fails if `cargo metadata` does.
pub fn of_workspace(root: &Path) -> anyhow::Result<Vec<Target>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .context("failed to run cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("failed to parse cargo metadata")?;
    let mut targets = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            targets.push(Target {
                package: text(&package["name"]),
                kind: text(&target["kind"][0]),
                name: text(&target["name"]),
                root: PathBuf::from(text(&target["src_path"])),
            });
        }
    }
    ensure!(!targets.is_empty(), "cargo metadata lists no targets");
    Ok(targets)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
