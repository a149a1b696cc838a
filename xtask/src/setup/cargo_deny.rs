//! cargo-deny, which checks `deny.toml`: built by cargo into the cache of tools.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use testbed::{capture, workspace};

use crate::progress::Step;

/// The version that `deny.toml` is written for.
pub(crate) const VERSION: &str = "0.20.2";

/// Whether it is built.
pub(crate) fn present() -> bool {
    path().is_file()
}

/// Where setup puts it: a new version gets a new folder.
pub(crate) fn path() -> PathBuf {
    home().join("bin/cargo-deny")
}

fn home() -> PathBuf {
    workspace::tools_dir().join(format!("cargo-deny-{VERSION}"))
}

/// Builds it without optimization: that takes a third of the time, and a check takes two seconds.
pub(crate) fn install() -> anyhow::Result<()> {
    let step = Step::start(format!("building cargo-deny {VERSION}"));
    let tools = workspace::tools_dir();
    fs::create_dir_all(&tools).with_context(|| format!("failed to create {}", tools.display()))?;
    let target = tempfile::tempdir_in(&tools).context("failed to create a build directory")?;
    let mut command = workspace::cargo();
    // Neither the workspace's configuration nor its flags are meant for it.
    command
        .current_dir(target.path())
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_TARGET_DIR", target.path())
        .envs([("CARGO_PROFILE_RELEASE_DEBUG", "0"), ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")])
        .envs([("CARGO_PROFILE_RELEASE_LTO", "off"), ("CARGO_PROFILE_RELEASE_STRIP", "true")])
        .args(["install", "cargo-deny", "--version", VERSION, "--locked"])
        .args(["--no-default-features", "--root"])
        .arg(home());
    capture::run(&mut command, |line| step.note(line))?;
    step.done_with(&path().display().to_string());
    Ok(())
}
