//! An executor: the processes of a job, in a pod's cgroup and network namespace, or in the node's
//! network.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::isolation::mounts::{ResolvConf, View};
use crate::isolation::namespaces::Namespaces;
use crate::isolation::sandbox::Sandbox;
use crate::isolation::sysctl;
use crate::node::{self, Node};
use crate::process::Finished;
use crate::workspace;

/// Whose network an executor uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Its own namespace behind a veth pair; the node masquerades it.
    Pod,
    /// The node's, as with `hostNetwork: true`.
    Host,
}

/// How an executor is made.
#[derive(Clone, Debug)]
pub struct ExecutorOptions {
    /// Its cgroup is `kubepods/pod<name>` below the node's root. Letters and digits.
    pub name: String,
    /// Its /etc/resolv.conf.
    pub resolv: ResolvConf,
    /// Whose network it uses.
    pub network: Network,
    /// Its cgroup below the node's root, instead of `kubepods/pod<name>`.
    pub cgroup: Option<String>,
}

impl ExecutorOptions {
    /// A pod named `name` whose resolver is the shim.
    pub fn pod(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            resolv: ResolvConf::default(),
            network: Network::Pod,
            cgroup: None,
        }
    }
}

/// An executor. It trusts the customer's certificate authority, and its PATH includes the Python
/// tools of the test bed.
#[derive(Debug)]
pub struct Executor {
    sandbox: Sandbox,
    outside: Sandbox,
}

impl Executor {
    pub(crate) fn new(
        node: &Node,
        number: u8,
        options: ExecutorOptions,
        ca_pem: &str,
    ) -> Result<Self> {
        let name = &options.name;
        let stage = node.sandbox().scope().folder(&format!("stage-{name}-{number}"))?;
        let view = || View::new(&stage, &options.resolv)?.trust(ca_pem);
        let namespaces = match options.network {
            Network::Pod => Namespaces::create(view),
            Network::Host => Namespaces::create_in(node.sandbox().namespaces(), view),
        };
        let namespaces =
            Arc::new(namespaces.with_context(|| format!("failed to make the executor {name}"))?);
        if options.network == Network::Pod {
            node.connect(&namespaces, number)?;
            namespaces.run(spare_ports)??;
        }
        let cgroup = options.cgroup.unwrap_or_else(|| format!("kubepods/pod{name}"));
        let mut sandbox = Sandbox::new(
            node.sandbox().scope(),
            namespaces,
            &Path::new(node::ROOT).join(cgroup),
            name,
        )?;
        sandbox.add_to_path(&workspace::python_home().join("bin"));
        // An image with an internal CA has these settings. pip must not read the host's
        // configuration.
        sandbox.set_environment("PIP_CONFIG_FILE", "/dev/null");
        sandbox.set_environment("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt");
        sandbox.set_environment("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        let outside = sandbox.in_cgroup(
            &Path::new(node::ROOT).join("system.slice/other.service"),
            &format!("outside-{name}"),
        )?;
        Ok(Self { sandbox, outside })
    }

    /// Where its processes run.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The control group: the same namespaces, but a cgroup without programs.
    pub fn outside(&self) -> &Sandbox {
        &self.outside
    }

    /// A sandbox with the executor's namespaces in another cgroup, given below the node's root.
    pub fn beside(&self, cgroup: &str) -> Result<Sandbox> {
        self.sandbox.in_cgroup(&Path::new(node::ROOT).join(cgroup), &cgroup.replace('/', "-"))
    }

    /// A program in the executor.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.sandbox.command(program)
    }

    /// Runs a line of shell in the executor.
    pub fn run(&self, line: &str, limit: Duration) -> Result<Finished> {
        self.sandbox.run(line, limit)
    }
}

/// A thousand connects a second exhaust the usual 28,000 ports within TIME_WAIT's minute.
fn spare_ports() -> Result<()> {
    sysctl::set("ipv4/ip_local_port_range", "1024 65535")?;
    sysctl::set("ipv4/tcp_tw_reuse", "1")
}
