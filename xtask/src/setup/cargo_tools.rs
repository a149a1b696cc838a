//! Tools that cargo builds into the cache of tools, each version in a folder of its own.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use testbed::{capture, workspace};

use super::needs::Group;
use crate::progress::Step;

/// A program from crates.io.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CargoTool {
    pub(crate) group: Group,
    name: &'static str,
    version: &'static str,
}

/// Checks `deny.toml`.
pub(crate) const DENY: CargoTool =
    CargoTool { group: Group::Dependencies, name: "cargo-deny", version: "0.20.2" };

/// Builds the Debian package from `package.metadata.deb`.
pub(crate) const DEB: CargoTool =
    CargoTool { group: Group::Package, name: "cargo-deb", version: "3.8.0" };

/// Those of these groups that are not built.
pub(crate) fn missing(groups: &[Group]) -> Vec<CargoTool> {
    let is_missing = |tool: &CargoTool| groups.contains(&tool.group) && !tool.path().is_file();
    [DENY, DEB].into_iter().filter(is_missing).collect()
}

impl CargoTool {
    /// Where setup puts it.
    pub(crate) fn path(self) -> PathBuf {
        self.home().join("bin").join(self.name)
    }

    pub(crate) fn description(self) -> String {
        format!("{} {}, built by cargo in about a minute", self.name, self.version)
    }

    fn home(self) -> PathBuf {
        workspace::tools_dir().join(format!("{}-{}", self.name, self.version))
    }

    /// Builds it without optimization: that takes a third of the time, and a run takes two seconds.
    pub(crate) fn install(self) -> anyhow::Result<()> {
        let step = Step::start(format!("building {} {}", self.name, self.version));
        let tools = workspace::tools_dir();
        fs::create_dir_all(&tools)
            .with_context(|| format!("failed to create {}", tools.display()))?;
        let target = tempfile::tempdir_in(&tools).context("failed to create a build directory")?;
        let mut command = workspace::cargo();
        // Neither the workspace's configuration nor its flags are meant for it.
        command
            .current_dir(target.path())
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("CARGO_TARGET_DIR", target.path())
            .envs([("CARGO_PROFILE_RELEASE_DEBUG", "0"), ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")])
            .envs([("CARGO_PROFILE_RELEASE_LTO", "off"), ("CARGO_PROFILE_RELEASE_STRIP", "true")])
            .args(["install", self.name, "--version", self.version, "--locked"])
            .args(["--no-default-features", "--root"])
            .arg(self.home());
        capture::run(&mut command, |line| step.note(line))?;
        step.done_with(&self.path().display().to_string());
        Ok(())
    }
}
