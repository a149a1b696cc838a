//! A stand-in for the kubelet on the test bed's node: podman 4.3, which plays Pods, but no
//! DaemonSets, and lacks some features of Pods.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use serde_yaml_ng as yaml;
use testbed::process::{self, Finished};
use testbed::workspace;
use testbed::{Executor, Node, Rig};

const LIMIT: Duration = Duration::from_secs(60);
/// Longest time of a probe's command.
const EXEC_LIMIT: Duration = Duration::from_secs(5);
/// Where podman puts a pod's cgroup.
const PODS: &str = "/sys/fs/cgroup/libpod_parent";
/// podman's state, in the node's own /run: podman takes no path of more than 50 bytes.
const RUNROOT: &str = "/run/podman";
/// The executor's image: a static shell and its tools.
const EXECUTOR_IMAGE: &str = "localhost/executor:1";

/// Podman on the rig's node, with a container storage of its own.
pub(crate) struct Kubelet<'rig> {
    node: &'rig Node,
    files: PathBuf,
}

/// Where an executor's container runs.
pub(crate) struct Container<'a> {
    /// Whose network namespace it shares.
    pub(crate) network: &'a Executor,
    /// The cgroup of its pod, on the node.
    pub(crate) cgroup: &'static str,
}

/// The manifest's pod, running.
pub(crate) struct Pod<'kubelet> {
    kubelet: &'kubelet Kubelet<'kubelet>,
}

impl<'rig> Kubelet<'rig> {
    /// Loads the agent's image and makes the executor's.
    pub(crate) fn new(rig: &'rig Rig) -> Result<Self> {
        let files = rig.files().join("podman");
        fs::create_dir_all(&files).context("failed to make podman's directory")?;
        let kubelet = Self { node: &rig.node, files };
        kubelet.configure()?;
        let archive = workspace::image_archive();
        ensure!(
            archive.is_file(),
            "{} is missing: `cargo xtask image` makes it",
            archive.display()
        );
        kubelet.podman(&["load", "--quiet", "--input", path(&archive)?])?.success()?;
        kubelet.make_executor_image()?;
        Ok(kubelet)
    }

    /// Runs podman on the node to its end.
    pub(crate) fn podman(&self, words: &[&str]) -> Result<Finished> {
        self.podman_within(LIMIT, words)
    }

    fn podman_within(&self, limit: Duration, words: &[&str]) -> Result<Finished> {
        let mut command = self.node.command("podman");
        command.arg("--root").arg(self.files.join("root")).args([
            "--runroot",
            RUNROOT,
            "--storage-driver",
            "vfs",
            "--log-level",
            "error",
        ]);
        command.args(words).env("CONTAINERS_CONF", self.files.join("containers.conf"));
        // No systemd runs the probes' timers here, so the test runs the probes.
        command.env("DISABLE_HC_SYSTEMD", "true");
        process::finish(command, limit)
            .with_context(|| format!("failed to run podman {}", words.join(" ")))
    }

    /// Runs a program of the executor's image in a container to its end.
    pub(crate) fn run(&self, sandbox: &Container<'_>, words: &[&str]) -> Result<Finished> {
        let network = format!("ns:{}", sandbox.network.sandbox().namespaces().net_path());
        let resolv = self.files.join("resolv.conf");
        fs::write(&resolv, sandbox.network.sandbox().read("/etc/resolv.conf")?)
            .context("failed to write the executor's resolv.conf")?;
        let resolv = format!("{}:/etc/resolv.conf:ro", path(&resolv)?);
        let run = [
            "run",
            "--rm",
            "--pull",
            "never",
            "--network",
            &network,
            "--cgroup-parent",
            sandbox.cgroup,
            "--volume",
            &resolv,
            EXECUTOR_IMAGE,
        ];
        self.podman(&[&run, words].concat())
    }

    /// Plays the manifest.
    pub(crate) fn play(&self) -> Result<Pod<'_>> {
        let manifest = fs::read_to_string(workspace::root().join("deploy/daemonset.yaml"))
            .context("failed to read the manifest")?;
        let played = self.files.join("pod.yaml");
        fs::write(&played, pod_of(&manifest, self.has_controllers()?)?)
            .context("failed to write the pod's manifest")?;
        self.allow_bpf()?;
        self.node.sandbox().namespaces().run(pod_cgroups)??;
        self.podman(&[
            "kube",
            "play",
            "--start=false",
            "--seccomp-profile-root",
            path(&self.files)?,
            path(&played)?,
        ])?
        .success()?;
        self.node.sandbox().namespaces().run(renew_pod_cgroups)??;
        self.podman(&["pod", "start", "redirector"])?.success()?;
        Ok(Pod { kubelet: self })
    }

    fn configure(&self) -> Result<()> {
        // Keeps this process's limits: raising them needs CAP_SYS_RESOURCE, which root lacks on
        // some machines.
        let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let files = limits.maximum.unwrap_or(1 << 20);
        let text = format!(
            "[containers]\npids_limit = 0\n\
             default_ulimits = [\"nofile={files}:{files}\", \"nproc=4096:4096\"]\n\
             [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\n\
             events_logger = \"none\"\n"
        );
        fs::write(self.files.join("containers.conf"), text)
            .context("failed to write containers.conf")
    }

    fn make_executor_image(&self) -> Result<()> {
        let context = self.files.join("executor");
        fs::create_dir_all(&context).context("failed to make a build context")?;
        let busybox = testbed::packages::path_of("busybox")?;
        fs::copy(busybox, context.join("busybox")).context("failed to copy busybox")?;
        fs::set_permissions(context.join("busybox"), fs::Permissions::from_mode(0o755))
            .context("failed to make busybox executable")?;
        fs::write(
            context.join("Containerfile"),
            "FROM scratch\nCOPY busybox /bin/busybox\nENTRYPOINT [\"/bin/busybox\"]\n",
        )
        .context("failed to write a Containerfile")?;
        self.podman(&["build", "--quiet", "--tag", EXECUTOR_IMAGE, path(&context)?])?
            .success()
            .map(drop)
    }

    /// A profile that lets a holder of CAP_BPF call bpf(2): containerd's default does, podman 4.3's
    /// wants CAP_SYS_ADMIN.
    fn allow_bpf(&self) -> Result<()> {
        let text = fs::read_to_string("/usr/share/containers/seccomp.json")
            .context("failed to read podman's seccomp profile")?;
        let mut profile: Value =
            serde_json::from_str(&text).context("failed to parse podman's seccomp profile")?;
        let rules =
            profile["syscalls"].as_array_mut().context("podman's seccomp profile has no rules")?;
        for rule in rules.iter_mut().filter(|rule| rule["action"] == "SCMP_ACT_ERRNO") {
            if let Some(names) = rule["names"].as_array_mut() {
                names.retain(|name| name != "bpf");
            }
        }
        rules.push(json!({
            "names": ["bpf"],
            "action": "SCMP_ACT_ALLOW",
            "args": [],
            "includes": {"caps": ["CAP_BPF"]},
            "excludes": {}
        }));
        fs::write(self.files.join("bpf.json"), profile.to_string())
            .context("failed to write the seccomp profile")
    }

    /// Whether the node's cgroups can limit memory and processor time; on a machine with hybrid
    /// cgroups they can't.
    fn has_controllers(&self) -> Result<bool> {
        let controllers = self.node.sandbox().read("/sys/fs/cgroup/cgroup.controllers")?;
        Ok(["cpu", "memory"]
            .iter()
            .all(|wanted| controllers.split_whitespace().any(|controller| controller == *wanted)))
    }
}

impl Pod<'_> {
    /// Runs a program in the agent's container until it succeeds; returns its output.
    pub(crate) fn wait_for(&self, words: &[&str], limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let said = match self
                .kubelet
                .podman_within(EXEC_LIMIT, &[&["exec", "redirector-agent"], words].concat())
            {
                Ok(done) if done.status.success() => return Ok(done.stdout),
                Ok(done) => done.text(),
                // An exec that meets the end of its container never returns.
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > deadline {
                let log =
                    self.kubelet.podman(&["logs", "--tail", "20", "redirector-agent"])?.text();
                bail!(
                    "`{}` in the pod did not succeed within {limit:?}: {said}\nthe agent's log \
                        ends with:\n{log}",
                    words.join(" ")
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The agent's effective capabilities, as the kernel shows them.
    pub(crate) fn capabilities(&self) -> Result<String> {
        let pid = self
            .kubelet
            .podman(&["inspect", "--format", "{{.State.Pid}}", "redirector-agent"])?
            .success()?
            .stdout;
        let status = fs::read_to_string(format!("/proc/{}/status", pid.trim()))
            .context("failed to read the agent's status")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .context("the kernel shows no capabilities")?;
        Ok(line.trim().to_owned())
    }

    /// Removes the pod, which kills its agent with SIGKILL.
    pub(crate) fn kill(&self) -> Result<()> {
        self.kubelet
            .podman(&["pod", "rm", "--force", "--time", "0", "redirector"])?
            .success()
            .map(drop)
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // The test may have removed it already; the rig removes what is left.
        let _ = self.kill();
    }
}

/// The manifest's ConfigMap and its DaemonSet's pod, unchanged except for four things: a pod that
/// comes from no controller needs a name; podman's seccomp default is not `RuntimeDefault`; it has
/// no name of a node; and limits can't be set on cgroups that have no controllers.
fn pod_of(manifest: &str, limits: bool) -> Result<String> {
    let documents =
        yaml::Deserializer::from_str(manifest).map(<Value as serde::Deserialize>::deserialize);
    let documents =
        documents.collect::<Result<Vec<_>, _>>().context("failed to parse the manifest")?;
    let of_kind = |kind: &str| {
        documents
            .iter()
            .find(|document| document["kind"] == kind)
            .with_context(|| format!("the manifest has no {kind}"))
    };

    let template = &of_kind("DaemonSet")?["spec"]["template"];
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template["metadata"],
        "spec": template["spec"]
    });
    pod["metadata"]["name"] = "redirector".into();
    pod["metadata"]["annotations"]["container.seccomp.security.alpha.kubernetes.io/agent"] =
        "localhost/bpf.json".into();
    let containers =
        pod["spec"]["containers"].as_array_mut().context("the pod has no containers")?;
    let variables = containers.iter_mut().filter_map(|container| container["env"].as_array_mut());
    for variable in variables.flatten() {
        if variable["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName" {
            *variable = json!({"name": variable["name"], "value": "node1"});
        }
    }
    if !limits {
        let containers =
            pod["spec"]["containers"].as_array_mut().context("the pod has no containers")?;
        containers
            .iter_mut()
            .filter_map(Value::as_object_mut)
            .for_each(|container| drop(container.remove("resources")));
    }
    Ok(format!("{}\n---\n{pod}\n", of_kind("ConfigMap")?))
}

/// Before it makes a pod's cgroup, podman enables all controllers on the way there, and treats
/// the kernel's refusal of an empty list as a failure. If the list is empty, a file that accepts
/// any write replaces it.
fn pod_cgroups() -> Result<()> {
    fs::create_dir_all(PODS).with_context(|| format!("failed to make {PODS}"))?;
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .context("failed to read the node's controllers")?;
    if controllers.trim().is_empty() {
        fs::write("/run/nothing", "").context("failed to write /run/nothing")?;
        for dir in ["/sys/fs/cgroup", PODS] {
            let file = format!("{dir}/cgroup.subtree_control");
            rustix::mount::mount_bind("/run/nothing", &file)
                .with_context(|| format!("failed to cover {file}"))?;
        }
    }
    Ok(())
}

/// podman 4.3 leaves a device filter on a new pod's cgroup that allows nothing, /dev/null included.
/// The cgroup is still empty, so a new one without a filter replaces it; each container has its own
/// filter.
fn renew_pod_cgroups() -> Result<()> {
    for entry in fs::read_dir(PODS).with_context(|| format!("failed to read {PODS}"))? {
        let path = entry.with_context(|| format!("failed to read {PODS}"))?.path();
        if path.is_dir() {
            fs::remove_dir(&path)
                .and_then(|()| fs::create_dir(&path))
                .with_context(|| format!("failed to replace {}", path.display()))?;
        }
    }
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
