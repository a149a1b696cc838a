//! gVisor: a job whose sockets belong to runsc's own network stack. On the host there is only the
//! raw socket by which that stack uses the pod's interface.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::guest::Guest;
use crate::executor::Executor;
use crate::isolation::sandbox::Sandbox;
use crate::packages;
use crate::process::{self, Finished};
use crate::service::Service;

/// This version of runsc recognizes the host's first network namespace by `net.core.rmem_default`,
/// which newer kernels have in every namespace, and then uses no network of its own.
const HIDE_SYSCTLS: &str = "mount -t tmpfs sysctls /proc/sys && mkdir /proc/sys/vm && \
    echo 65536 >/proc/sys/vm/mmap_min_addr && exec \"$@\"";

/// Longest time until the sandbox runs, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The sandbox's name.
const CONTAINER: &str = "job";

/// A pod whose container runs under runsc, which takes the addresses of the pod's interface over.
#[derive(Debug)]
pub struct GVisor {
    _runsc: Service,
    pod: Executor,
}

impl GVisor {
    /// Starts the sandbox.
    pub fn start(pod: Executor) -> Result<Self> {
        let bundle = pod.sandbox().folder("bundle")?;
        fs::write(bundle.join("config.json"), configuration(pod.sandbox()).to_string())
            .context("failed to write a bundle's configuration")?;
        let mut command = pod.command(packages::path_of("unshare")?);
        command.args(["--mount", "/bin/sh", "-c", HIDE_SYSCTLS, "sh"]);
        command.arg(packages::unpacked("usr/bin/runsc")?).args(arguments(pod.sandbox())?);
        command.arg("run").arg("--bundle").arg(&bundle).arg(CONTAINER);
        let mut runsc = Service::start("runsc", &bundle.join("runsc.log"), command)?;
        runsc.wait_ready(START_LIMIT, || {
            Ok(exec(pod.sandbox(), "true", START_LIMIT)?.status.success())
        })?;
        Ok(Self { _runsc: runsc, pod })
    }
}

impl Guest for GVisor {
    fn run(&self, line: &str, limit: Duration) -> Result<Finished> {
        exec(self.pod.sandbox(), line, limit)
    }
}

fn exec(sandbox: &Sandbox, line: &str, limit: Duration) -> Result<Finished> {
    let mut command = sandbox.command(packages::unpacked("usr/bin/runsc")?);
    command.args(arguments(sandbox)?).arg("exec");
    command.arg("--cwd").arg(sandbox.home()).args([CONTAINER, "/bin/sh", "-c", line]);
    process::finish(command, limit).with_context(|| format!("failed to run `{line}` in gVisor"))
}

fn arguments(sandbox: &Sandbox) -> Result<[String; 4]> {
    let root = format!("--root={}", sandbox.folder("runsc")?.display());
    let fixed = ["--platform=ptrace", "--network=sandbox", "--ignore-cgroups"].map(str::to_owned);
    let [platform, network, cgroups] = fixed;
    Ok([root, platform, network, cgroups])
}

/// A bundle (OCI) with the machine's own root file system, which sleeps.
fn configuration(sandbox: &Sandbox) -> Value {
    let home = sandbox.home().display();
    let environment: Vec<String> = sandbox
        .environment()
        .map(|(key, value)| format!("{key}={value}"))
        .chain([format!("HOME={home}")])
        .collect();
    let capabilities = ["CAP_NET_RAW"];
    json!({
        "ociVersion": "1.0.0",
        "root": {"path": "/", "readonly": false},
        "hostname": "gvisor",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        ],
        "process": {
            "user": {"uid": 0, "gid": 0},
            "cwd": sandbox.home(),
            "env": environment,
            "args": ["/bin/sleep", "1000"],
            "capabilities": {"bounding": capabilities, "effective": capabilities,
                             "permitted": capabilities},
        },
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
            {"type": "network", "path": sandbox.namespaces().net_path()},
        ]},
    })
}
