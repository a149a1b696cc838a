//! The Debian package that `cargo xtask deb` makes, and a later version of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{capture, workspace};

/// The package.
///
/// # Errors
///
/// If it is missing.
pub fn package() -> Result<PathBuf> {
    let package = workspace::debian_package();
    ensure!(package.is_file(), "{} is missing: run `cargo xtask deb`", package.display());
    Ok(package)
}

/// The same package with a later version, in `folder`.
///
/// # Errors
///
/// If the package is missing or cannot be taken apart.
pub fn later_package(folder: &Path) -> Result<PathBuf> {
    let (tree, later) = (folder.join("tree"), folder.join("later.deb"));
    let run = |arguments: &[&Path]| {
        capture::run(Command::new("dpkg-deb").args(arguments), |_| {}).map(drop)
    };
    run(&["--raw-extract".as_ref(), &package()?, &tree])?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).context("failed to read the package's control file")?;
    let is_version = |line: &&str| line.starts_with("Version: ");
    let version = text.lines().find(is_version).context("the package has no version")?;
    fs::write(&control, text.replace(version, &format!("{version}.1")))
        .context("failed to write the package's control file")?;
    run(&["--build".as_ref(), "-Zgzip".as_ref(), "-z1".as_ref(), &tree, &later])?;
    Ok(later)
}
