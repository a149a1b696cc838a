//! Docker in a pod, as executors' jobs use it: dockerd with a bridge, veth pairs and masquerading
//! of its own in the pod's network namespace, and a container behind them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::containers;
use super::guest::Guest;
use crate::isolation::cgroup;
use crate::isolation::mounts::{ResolvConf, View};
use crate::isolation::namespaces::Namespaces;
use crate::isolation::sandbox::Sandbox;
use crate::isolation::sysctl;
use crate::packages;
use crate::process::{self, Finished};
use crate::rig::Rig;
use crate::service::Service;

/// Longest time until dockerd answers.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Longest time of one of docker's own commands.
const LIMIT: Duration = Duration::from_secs(60);

/// A pod with dockerd, and a container of it that runs.
#[derive(Debug)]
pub struct NestedDocker {
    sandbox: Sandbox,
    socket: PathBuf,
    dockerd: Service,
}

impl NestedDocker {
    /// Starts both. The pod is number `number` of the rig's; its cgroup and those of its containers
    /// are outside those that the agent attaches to.
    pub fn start(rig: &Rig, number: u8, nameserver: &str) -> Result<Self> {
        let node = rig.node.sandbox();
        let scope = node.scope();
        let below = Path::new(crate::node::ROOT).join("privileged/dind");
        let root = scope.cgroup().join(&below);
        cgroup::make(&root)?;
        let stage = scope.folder("stage-dind")?;
        let namespaces = Namespaces::create(|| {
            let view = View::new(&stage, &ResolvConf::of(nameserver))?;
            view.trust(rig.customer.ca_pem())?;
            view.own_cgroups(&root)?;
            sysctl::set("ipv4/ip_forward", "1")
        })
        .context("failed to make a pod for dockerd")?;
        rig.node.connect(&namespaces, number)?;
        let own = below.join("dockerd");
        let mut sandbox = Sandbox::new(scope, Arc::new(namespaces), &own, "dind")?;
        for package in ["docker.io", "containerd"] {
            for folder in ["usr/bin", "usr/sbin"] {
                sandbox.add_to_path(&packages::unpacked_home(package).join(folder));
            }
        }
        let folder = sandbox.folder("docker")?;
        let socket = PathBuf::from("/run/docker.sock");
        let dockerd = Service::start(
            "dockerd",
            &folder.join("dockerd.log"),
            daemon(&sandbox, &folder, &socket)?,
        )?;
        let mut nested = Self { sandbox, socket, dockerd };
        nested.wait_ready()?;
        nested.run_container(rig, nameserver, &folder)?;
        Ok(nested)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let Self { sandbox, socket, dockerd } = self;
        dockerd.wait_ready(READY_LIMIT, || {
            let info = docker(sandbox, socket, &["version"])?;
            Ok(process::finish(info, LIMIT)?.status.success())
        })
    }

    fn run_container(&self, rig: &Rig, nameserver: &str, folder: &Path) -> Result<()> {
        let image = containers::image(folder)?.display().to_string();
        self.docker(&["import", &image, "guest:1"], LIMIT)?.success()?;
        let mut run = vec!["run".to_owned(), "--detach".to_owned(), "--name=guest".to_owned()];
        run.push(format!("--dns={nameserver}"));
        run.extend(containers::arguments(&self.sandbox));
        run.push(format!("--env=SSL_CERT_FILE={}", rig.customer.ca_path().display()));
        run.extend(["guest:1", "/bin/sleep", "1000"].map(str::to_owned));
        let run: Vec<&str> = run.iter().map(String::as_str).collect();
        self.docker(&run, LIMIT)?
            .success()
            .with_context(|| format!("no nested container; dockerd: {}", self.dockerd.tail()))
            .map(drop)
    }

    fn docker(&self, words: &[&str], limit: Duration) -> Result<Finished> {
        process::finish(docker(&self.sandbox, &self.socket, words)?, limit)
            .with_context(|| format!("failed to run docker {words:?}"))
    }
}

fn daemon(sandbox: &Sandbox, folder: &Path, socket: &Path) -> Result<Command> {
    let mut command = sandbox.command(packages::unpacked("usr/sbin/dockerd")?);
    command.arg("--data-root").arg(folder.join("data"));
    command.args(["--exec-root=/run/docker", "--pidfile=/run/docker.pid", "--storage-driver=vfs"]);
    command.arg("--host").arg(format!("unix://{}", socket.display()));
    // The tests' addresses begin with 172.17 on no other interface.
    command.args(["--bip=172.17.0.1/16", "--exec-opt=native.cgroupdriver=cgroupfs"]);
    let files = containers::open_files();
    command.arg(format!("--default-ulimit=nofile={files}:{files}"));
    Ok(command)
}

fn docker(sandbox: &Sandbox, socket: &Path, words: &[&str]) -> Result<Command> {
    let client = packages::unpacked_home("docker.io").join("usr/bin/docker");
    let mut command = sandbox.command(client);
    command.env("DOCKER_HOST", format!("unix://{}", socket.display())).args(words);
    Ok(command)
}

impl Guest for NestedDocker {
    fn run(&self, line: &str, limit: Duration) -> Result<Finished> {
        self.docker(&["exec", "guest", "/bin/sh", "-c", line], limit)
    }
}

impl Drop for NestedDocker {
    fn drop(&mut self) {
        // Its containers would outlive it; the rig's removal kills what is left.
        let _ = self.docker(&["rm", "--force", "guest"], LIMIT);
        let _ = self.dockerd.terminate(LIMIT);
    }
}
