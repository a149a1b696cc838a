//! This program itself, to run another verb of it in a process of its own.

use std::{env, path::PathBuf};

use anyhow::Context as _;

/// Where it is.
pub(crate) fn path() -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("failed to find this program's own path")?;
    // If cargo has rebuilt xtask meanwhile, with the same sources, our own file is gone, and the
    // kernel appends this to its name.
    let name = own.to_string_lossy();
    Ok(name.strip_suffix(" (deleted)").map(PathBuf::from).unwrap_or(own))
}
