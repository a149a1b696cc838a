//! The crates of the workspace, one per target, and the crates that they depend on, as cargo lists
//! them.

use std::{
    collections::BTreeSet,
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
    let metadata = metadata(root)?;
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

/// The crates from a registry that any manifest of the workspace names.
///
/// # Errors
/// Fails if `cargo metadata` does.
pub fn dependencies(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let metadata = metadata(root)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let dependencies =
        packages.flat_map(|package| package["dependencies"].as_array().into_iter().flatten());
    let names: BTreeSet<String> = dependencies
        .filter(|dependency| !dependency["source"].is_null())
        .map(|dependency| text(&dependency["name"]))
        .collect();
    ensure!(!names.is_empty(), "cargo metadata lists no dependencies");
    Ok(names)
}

fn metadata(root: &Path) -> anyhow::Result<Value> {
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
    serde_json::from_slice(&output.stdout).context("failed to parse cargo metadata")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
