//! A container of a rootless Podman, with the network that it chooses itself.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::containers;
use super::guest::Guest;
use super::rootless_user::{RUNTIME, RootlessUser};
use crate::packages;
use crate::process::{self, Finished};
use crate::rig::Rig;

/// Longest time of one of podman's own commands.
const LIMIT: Duration = Duration::from_secs(120);

/// A running container. It and what connects for it are in the cgroup of the user's host: a user
/// has no cgroups to give away where version 1 has the controllers.
#[derive(Debug)]
pub struct RootlessPodman<'a> {
    user: &'a RootlessUser,
}

impl<'a> RootlessPodman<'a> {
    /// Starts the container.
    pub fn start(rig: &Rig, user: &'a RootlessUser) -> Result<Self> {
        let sandbox = user.host().sandbox();
        let folder = sandbox.folder("podman")?;
        fs::write(folder.join("containers.conf"), containers::podman_configuration())
            .context("failed to write containers.conf")?;
        let image = containers::image(&folder)?;
        let container = Self { user };
        let import = ["import", "--quiet", &image.display().to_string(), "guest:1"];
        container.podman(&import, LIMIT)?.success()?;
        let mut run: Vec<String> = ["run", "--detach", "--name=guest"].map(str::to_owned).to_vec();
        run.extend(containers::arguments(sandbox));
        run.push(format!("--env=SSL_CERT_FILE={}", rig.customer.ca_path().display()));
        run.extend(["guest:1", "/bin/sleep", "1000"].map(str::to_owned));
        let run: Vec<&str> = run.iter().map(String::as_str).collect();
        container.podman(&run, LIMIT)?.success().context("failed to start a container")?;
        Ok(container)
    }

    fn podman(&self, words: &[&str], limit: Duration) -> Result<Finished> {
        let sandbox = self.user.host().sandbox();
        let mut command = self.user.command(sandbox, packages::path_of("podman")?)?;
        command.arg("--runroot").arg(format!("{RUNTIME}/podman"));
        command.args(["--storage-driver=vfs", "--log-level=error"]).args(words);
        command.env("CONTAINERS_CONF", sandbox.home().join("podman/containers.conf"));
        process::finish(command, limit).with_context(|| format!("failed to run podman {words:?}"))
    }
}

impl Guest for RootlessPodman<'_> {
    fn run(&self, line: &str, limit: Duration) -> Result<Finished> {
        self.podman(&["exec", "guest", "/bin/sh", "-c", line], limit)
    }
}

impl Drop for RootlessPodman<'_> {
    fn drop(&mut self) {
        // The rig's removal kills what is left.
        let _ = self.podman(&["rm", "--force", "--time=0", "guest"], LIMIT);
    }
}
