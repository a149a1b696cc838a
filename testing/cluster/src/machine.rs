//! The node: containerd and a kubelet in namespaces of their own, on the rig's network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use testbed::{
    Rig, packages,
    process::{self, Finished},
    service::Service,
    topology::{DNS_ADDRESS, NODE_ADDRESS},
};

use crate::{
    control_plane::{built, write},
    images::{self, TOOLS_IMAGE},
};

/// The name of the node.
pub const NODE: &str = "node1";

const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/boot.sh");
/// Longest time until the node's init runs.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// Longest time of a step on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// The address of the API server's service, which a kubelet gives to every pod.
const API_SERVICE: &str = "10.96.0.1";

/// The node. Its processes have a pid namespace, which ends with its init.
#[derive(Debug)]
pub(crate) struct Machine {
    folder: PathBuf,
    path: String,
    /// The pid of its init, as this process sees it.
    pid: u32,
    services: Vec<Service>,
    _init: Service,
}

impl Machine {
    pub(crate) fn boot(rig: &Rig) -> Result<Self> {
        let folder = rig.files().join("machine");
        fs::create_dir_all(&folder).context("failed to make the machine's folder")?;
        let marker = folder.join("init");
        let mut boot = rig.node.command("sh");
        boot.arg(BOOT).arg(rig.name());
        // An init that reaps nothing leaves zombies of ended containers: a shell reaps them.
        let line = format!("touch {}; while :; do sleep 1000 & wait $!; done", marker.display());
        boot.args(["sh", "-c", &line]);
        let mut init = Service::start("init", &folder.join("init.log"), boot)?;
        init.wait_ready(BOOT_LIMIT, || Ok(marker.exists()))?;
        let pid = child_of(init.pid()).context("the machine has no init")?;
        let bins = ["containerd", "containernetworking-plugins"].map(packages::unpacked_home);
        let path = format!(
            "{}:{}:/usr/sbin:/usr/bin:/sbin:/bin",
            bins[0].join("usr/bin").display(),
            bins[1].join("usr/sbin").display()
        );
        let machine = Self { folder, path, pid, services: Vec::new(), _init: init };
        machine.route_services()?;
        Ok(machine)
    }

    /// Starts containerd with its images, and the kubelet.
    pub(crate) fn start(&mut self, kubeconfig: &Path) -> Result<()> {
        let socket = self.folder.join("containerd.sock");
        self.configure()?;
        let mut containerd = self.command(packages::unpacked("usr/bin/containerd")?);
        containerd.arg("--config").arg(self.folder.join("containerd.toml"));
        let mut containerd = self.service("containerd", containerd)?;
        containerd.wait_ready(LIMIT, || Ok(self.ctr(&["version"])?.status.success()))?;
        self.services.push(containerd);
        for archive in images::archives(&self.folder)? {
            let archive = archive.to_str().context("a path is not UTF-8")?;
            self.ctr(&["images", "import", archive])?.success()?;
        }
        let mut kubelet = self.command(built("kubelet")?);
        kubelet
            .arg(format!("--config={}", self.folder.join("kubelet.json").display()))
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg("--container-runtime=remote")
            .arg(format!("--container-runtime-endpoint=unix://{}", socket.display()))
            .arg(format!("--root-dir={}", self.folder.join("kubelet").display()))
            .arg(format!("--cert-dir={}", self.folder.join("certificates").display()))
            .arg(format!("--volume-plugin-dir={}", self.folder.join("plugins").display()))
            .arg(format!("--hostname-override={NODE}"))
            .arg(format!("--node-ip={NODE_ADDRESS}"));
        let kubelet = self.service("kubelet", kubelet)?;
        self.services.push(kubelet);
        Ok(())
    }

    /// A program on the node.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--all", "--root", "--target", &self.pid.to_string()]);
        command.args(["env", "-i", &format!("PATH={}", self.path), "LC_ALL=C.UTF-8"]);
        command.arg(format!("HOME={}", self.folder.display())).arg(program);
        process::die_with_parent(&mut command);
        command
    }

    /// Runs a line of shell on the node.
    pub(crate) fn run(&self, line: &str) -> Result<Finished> {
        let mut command = self.command("sh");
        command.args(["-c", line]);
        process::finish(command, LIMIT).with_context(|| format!("failed to run `{line}`"))
    }

    /// The end of the logs of containerd and of the kubelet.
    pub(crate) fn tails(&self) -> String {
        self.services.iter().map(Service::tail).collect::<Vec<_>>().join("\n")
    }

    fn service(&self, name: &str, command: Command) -> Result<Service> {
        Service::start(name, &self.folder.join(format!("{name}.log")), command)
    }

    fn ctr(&self, words: &[&str]) -> Result<Finished> {
        let mut command = self.command("ctr");
        command.arg("--address").arg(self.folder.join("containerd.sock"));
        command.args(["--namespace", "k8s.io"]).args(words);
        process::finish(command, LIMIT).context("failed to run ctr")
    }

    /// What kube-proxy does for the API server's service, and masquerading of pods.
    fn route_services(&self) -> Result<()> {
        let to_api = format!("ip daddr {API_SERVICE} tcp dport 443 dnat to {NODE_ADDRESS}:6443");
        let rules = format!(
            "table ip services {{
                chain output {{ type nat hook output priority -100; {to_api}; }}
                chain prerouting {{ type nat hook prerouting priority dstnat; {to_api}; }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat;
                    ip saddr 10.244.0.0/16 oifname \\\"uplink\\\" snat to {NODE_ADDRESS};
                }}
            }}"
        );
        self.run(&format!("echo \"{rules}\" | nft -f -"))?.success().map(drop)
    }

    fn configure(&self) -> Result<()> {
        let folder = self.folder.display();
        let cni = packages::unpacked_home("containernetworking-plugins").join("usr/lib/cni");
        fs::create_dir_all(self.folder.join("cni")).context("failed to make a folder")?;
        let network = json!({
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [{
                "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": self.folder.join("ipam"),
                    "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]
                }
            }]
        });
        write(&self.folder.join("cni/10-pods.conflist"), &network.to_string())?;
        // Root may lack CAP_SYS_RESOURCE, which a lower OOM score needs.
        let containerd = format!(
            r#"version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{TOOLS_IMAGE}"
restrict_oom_score_adj = true
disable_tcp_service = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{}"
conf_dir = "{folder}/cni"
"#,
            cni.display()
        );
        write(&self.folder.join("containerd.toml"), &containerd)?;
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "failSwapOn": false,
            "healthzPort": 0,
            "makeIPTablesUtilChains": false,
            "resolvConf": "/etc/resolv.conf",
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            "evictionHard": {"memory.available": "10Mi"},
            "imageGCHighThresholdPercent": 100
        });
        write(&self.folder.join("kubelet.json"), &kubelet.to_string())
    }
}

/// The first child of a process.
fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
