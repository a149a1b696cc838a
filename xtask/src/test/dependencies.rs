//! Stages that check the dependencies against `deny.toml`: licences, duplicates, sources, and
//! RustSec's advisories.

use std::{fs, path::Path, process::Command};

use testbed::workspace;

use super::stage::Stage;
use crate::setup::cargo_tools;

/// The checks that need no advisory database.
pub(super) fn policy() -> anyhow::Result<Command> {
    Ok(check(&[], &["licenses", "bans", "sources"]))
}

/// The advisories, where this machine has RustSec's database.
pub(super) fn advisories() -> Stage {
    const NAME: &str = "advisories";
    let databases = workspace::cargo_home().join("advisory-dbs");
    if has_subfolder(&databases) {
        return Stage::program(NAME, || Ok(check(&["--offline"], &["advisories"])));
    }
    let reason = format!(
        "no RustSec database in {}; `cargo deny fetch db` downloads it",
        databases.display()
    );
    Stage::not_checked(NAME, reason)
}

fn check(options: &[&str], which: &[&str]) -> Command {
    let mut command = Command::new(cargo_tools::DENY.path());
    workspace::clean(&mut command);
    command
        .current_dir(workspace::root())
        .args(["--locked", "--log-level", "warn"])
        .args(options)
        .arg("check")
        .args(which);
    command
}

fn has_subfolder(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|entries| entries.flatten().any(|entry| entry.path().is_dir()))
}
