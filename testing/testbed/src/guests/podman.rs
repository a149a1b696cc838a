//! A container of podman's on its bridge network, with masquerading by podman.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::containers;
use super::guest::Guest;
use crate::isolation::sandbox::Sandbox;
use crate::packages;
use crate::process::{self, Finished};
use crate::rig::Rig;

/// Longest time of one of podman's own commands.
const LIMIT: Duration = Duration::from_secs(60);
/// podman's state, in the node's own /run: podman takes no path of more than 50 bytes.
const RUNROOT: &str = "/run/podman";

/// A running container.
#[derive(Debug)]
pub struct PodmanContainer {
    sandbox: Sandbox,
    files: PathBuf,
}

impl PodmanContainer {
    /// Starts podman's container on the node, outside the cgroups that the agent attaches to.
    pub fn start(rig: &Rig, nameserver: &str) -> Result<Self> {
        let sandbox = rig.node.sandbox().clone();
        let files = sandbox.scope().folder("podman-guest")?;
        let container = Self { sandbox, files };
        fs::write(container.files.join("containers.conf"), containers::podman_configuration())
            .context("failed to write containers.conf")?;
        let image = containers::image(&container.files)?;
        let import = ["import", "--quiet", &image.display().to_string(), "guest:1"];
        container.podman(&import, LIMIT)?.success()?;
        let mut run: Vec<String> =
            ["run", "--detach", "--name=guest", "--network=podman"].map(str::to_owned).to_vec();
        run.push("--cgroup-parent=/machine".to_owned());
        run.push(format!("--dns={nameserver}"));
        run.extend(containers::arguments(&container.sandbox));
        let ca = rig.customer.ca_path().display();
        run.push(format!("--env=SSL_CERT_FILE={ca}"));
        run.extend(["guest:1", "/bin/sleep", "1000"].map(str::to_owned));
        let run: Vec<&str> = run.iter().map(String::as_str).collect();
        container.podman(&run, LIMIT)?.success().context("failed to start podman's container")?;
        Ok(container)
    }

    fn podman(&self, words: &[&str], limit: Duration) -> Result<Finished> {
        let mut command = self.sandbox.command(packages::path_of("podman")?);
        command.arg("--root").arg(self.files.join("storage")).args(["--runroot", RUNROOT]);
        command.args(["--storage-driver", "vfs", "--log-level", "error"]).args(words);
        command.env("CONTAINERS_CONF", self.files.join("containers.conf"));
        process::finish(command, limit).with_context(|| format!("failed to run podman {words:?}"))
    }
}

impl Guest for PodmanContainer {
    fn run(&self, line: &str, limit: Duration) -> Result<Finished> {
        self.podman(&["exec", "guest", "/bin/sh", "-c", line], limit)
    }
}

impl Drop for PodmanContainer {
    fn drop(&mut self) {
        // The rig's removal kills what is left.
        let _ = self.podman(&["rm", "--force", "--time=0", "guest"], LIMIT);
    }
}
