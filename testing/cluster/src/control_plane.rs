//! etcd and the API server, on the node's network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use testbed::{Rig, Sandbox, packages, process, service::Service, workspace};

use crate::kubectl::Kubectl;

/// Longest time until a server answers: the API server installs its objects first.
const READY_LIMIT: Duration = Duration::from_secs(180);
const LIMIT: Duration = Duration::from_secs(60);
const ETCD: &str = "http://127.0.0.1:2379";
/// The API server, on the node.
const URL: &str = "https://127.0.0.1:6443";
/// The token of an administrator: only this network has the API server.
const TOKEN: &str = "administrator";

/// The API server and its store. Dropping it ends both.
#[derive(Debug)]
pub struct ControlPlane {
    kubectl: Kubectl,
    folder: PathBuf,
    sandbox: Sandbox,
    // The API server ends before its store.
    api: Service,
    _etcd: Service,
}

impl ControlPlane {
    /// Starts both, without a node. Takes some seconds.
    pub fn start(rig: &Rig) -> Result<Self> {
        let folder = rig.files().join("control-plane");
        fs::create_dir_all(&folder).context("failed to make the control plane's folder")?;
        let sandbox = rig.node.sandbox().clone();
        make_keys(&folder)?;
        let kubeconfig = folder.join("kubeconfig");
        write(&kubeconfig, &configuration())?;
        let kubectl = Kubectl::new(&sandbox, kubeconfig)?;
        let mut etcd = Service::start("etcd", &folder.join("etcd.log"), etcd(&sandbox, &folder)?)?;
        let health = format!("curl --silent --fail {ETCD}/health");
        etcd.wait_ready(READY_LIMIT, || Ok(sandbox.run(&health, LIMIT)?.status.success()))?;
        let log = folder.join("kube-apiserver.log");
        let mut api = Service::start("kube-apiserver", &log, api_server(&sandbox, &folder)?)?;
        api.wait_ready(READY_LIMIT, || {
            Ok(kubectl.run(&["get", "--raw", "/readyz"])?.status.success())
        })?;
        Ok(Self { kubectl, folder, sandbox, api, _etcd: etcd })
    }

    /// kubectl, as an administrator.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// An administrator's configuration, for programs on the node.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// The certificate that programs must trust.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("pki/apiserver.crt")
    }

    /// Where it runs.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Makes the API server answer nobody, or again.
    pub fn set_silent(&self, silent: bool) -> Result<()> {
        self.api.signal(if silent { Signal::STOP } else { Signal::CONT })
    }

    /// The API server's pid.
    pub fn api_pid(&self) -> u32 {
        self.api.pid()
    }

    /// The scheduler and the controllers.
    pub(crate) fn start_controllers(&self) -> Result<Vec<Service>> {
        let mut controllers = self.command("kube-controller-manager")?;
        controllers
            .arg(self.flag("service-account-private-key-file", "key.pem"))
            .arg(self.flag("root-ca-file", "pki/apiserver.crt"))
            .arg("--controllers=*,-nodeipam,-route,-cloud-node-lifecycle");
        let scheduler = self.command("kube-scheduler")?;
        [("kube-controller-manager", controllers), ("kube-scheduler", scheduler)]
            .into_iter()
            .map(|(name, mut command)| {
                command.args(["--leader-elect=false", "--port=0", "--bind-address=127.0.0.1"]);
                command.arg(self.flag("cert-dir", name));
                command.arg(format!("--kubeconfig={}", self.kubeconfig().display()));
                Service::start(name, &self.folder.join(format!("{name}.log")), command)
            })
            .collect()
    }

    fn command(&self, program: &str) -> Result<Command> {
        Ok(self.sandbox.command(built(program)?))
    }

    fn flag(&self, flag: &str, file: &str) -> String {
        format!("--{flag}={}", self.folder.join(file).display())
    }
}

/// A program of Kubernetes.
pub(crate) fn built(program: &str) -> Result<PathBuf> {
    let path = workspace::kubernetes_home().join(program);
    ensure!(path.is_file(), "{} is missing: `cargo xtask kube` builds it", path.display());
    Ok(path)
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

fn etcd(sandbox: &Sandbox, folder: &Path) -> Result<Command> {
    let mut command = sandbox.command(packages::unpacked("usr/bin/etcd")?);
    command.arg("--data-dir").arg(folder.join("etcd"));
    command.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync"]);
    Ok(command)
}

fn api_server(sandbox: &Sandbox, folder: &Path) -> Result<Command> {
    write(&folder.join("tokens.csv"), &format!("{TOKEN},admin,admin,system:masters\n"))?;
    let mut command = sandbox.command(built("kube-apiserver")?);
    for (flag, file) in [
        ("cert-dir", "pki"),
        ("token-auth-file", "tokens.csv"),
        ("service-account-key-file", "key.pem"),
        ("service-account-signing-key-file", "key.pem"),
    ] {
        command.arg(format!("--{flag}={}", folder.join(file).display()));
    }
    command.arg(format!("--etcd-servers={ETCD}"));
    command.arg(format!("--advertise-address={}", testbed::topology::NODE_ADDRESS));
    command.args([
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        "--insecure-port=0",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
    ]);
    Ok(command)
}

/// The key by which the API server and the controllers sign accounts' tokens.
fn make_keys(folder: &Path) -> Result<()> {
    let mut openssl = packages::tool("openssl")?;
    openssl.args(["genrsa", "-out"]).arg(folder.join("key.pem")).arg("2048");
    process::finish(openssl, LIMIT)?.success().context("failed to make a key").map(drop)
}

fn configuration() -> String {
    let server = json!({"server": URL, "insecure-skip-tls-verify": true});
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": server}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}]
    })
    .to_string()
}
