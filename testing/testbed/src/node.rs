//! The node: the machine that runs agent and executors.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::isolation::cgroup;
use crate::isolation::mounts::{ResolvConf, View};
use crate::isolation::namespaces::Namespaces;
use crate::isolation::network;
use crate::isolation::sandbox::Sandbox;
use crate::isolation::scope::RigScope;
use crate::isolation::sysctl;
use crate::process::{self, Finished};
use crate::topology::{
    CUSTOMER_GATEWAY, CUSTOMER_NETWORK, DNS_ADDRESS, NODE_ADDRESS, NODE_ADDRESS_2,
};

/// The node's own cgroup root, below the rig's directory.
pub(crate) const ROOT: &str = "node";
/// Where the agent lives on a node with systemd.
const AGENT_CGROUP: &str = "node/system.slice/redirector.service";
/// Longest time a command of the product may take.
const CLI_LIMIT: Duration = Duration::from_secs(30);

/// The node. Its file system view: own `/etc`, `/run` and `/var/lib/redirector`, `/sys/fs/cgroup`
/// rooted at the rig, a fresh bpffs.
#[derive(Debug)]
pub struct Node {
    sandbox: Sandbox,
}

impl Node {
    pub(crate) fn new(scope: &Arc<RigScope>, customer: &Namespaces) -> Result<Self> {
        // `attach.cgroups = ["auto"]` looks for it when the agent starts, as on a real node.
        cgroup::make(&scope.cgroup().join(ROOT).join("kubepods"))?;
        let (root, stage) = (scope.cgroup().join(ROOT), scope.folder("stage-node")?);
        let uplink = uplink_commands(&customer.net_path());
        let namespaces = Namespaces::create(|| {
            View::new(&stage, &ResolvConf::of(DNS_ADDRESS))?.become_node(&root)?;
            sysctl::set("ipv4/ip_forward", "1")?;
            network::ip(&uplink)?;
            network::nft(&nat_rules())
        })
        .context("failed to make the node")?;
        Ok(Self {
            sandbox: Sandbox::new(scope, Arc::new(namespaces), Path::new(AGENT_CGROUP), "node")?,
        })
    }

    /// Where the agent and its command line run: the node's namespaces, outside every executor's
    /// cgroup.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The same, to change its environment variables.
    pub fn sandbox_mut(&mut self) -> &mut Sandbox {
        &mut self.sandbox
    }

    /// A program on the node, as root, in the agent's cgroup.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.sandbox.command(program)
    }

    /// Runs the command line `binary` with `arguments`. A failing exit code is no error.
    pub fn cli(&self, binary: &Path, arguments: &[&str]) -> Result<Finished> {
        let mut command = self.sandbox.command(binary);
        command.args(arguments);
        process::finish(command, CLI_LIMIT)
            .with_context(|| format!("failed to run `redirector {}`", arguments.join(" ")))
    }

    /// As [`Node::cli`] with `-o json`, parsed. The exit code is ignored: `status` exits 1 when it
    /// is degraded.
    pub fn cli_json(&self, binary: &Path, arguments: &[&str]) -> Result<serde_json::Value> {
        let done = self.cli(binary, &[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&done.stdout).with_context(|| {
            format!(
                "failed to parse the JSON of `redirector {}` ({}): {}",
                arguments.join(" "),
                done.status,
                done.text()
            )
        })
    }

    /// Joins a new namespace to the node with a veth pair: `eth0` on its side. The link's
    /// network is 10.61.NUMBER.0/24.
    pub(crate) fn connect(&self, namespaces: &Namespaces, number: u8) -> Result<()> {
        let path = namespaces.net_path();
        self.sandbox.namespaces().run(|| {
            network::ip(&format!(
                "link add pod{number} type veth peer name eth0 netns {path}\n\
                 addr add 10.61.{number}.1/24 dev pod{number}\n\
                 link set pod{number} up\n"
            ))
        })??;
        namespaces.run(|| {
            network::ip(&format!(
                "link set lo up\n\
                 addr add 10.61.{number}.2/24 dev eth0\n\
                 link set eth0 up\n\
                 route add default via 10.61.{number}.1\n"
            ))
        })?
    }
}

/// The node's default route ends in the customer's namespace: a leaked packet is counted there and
/// goes no further.
fn uplink_commands(customer: &str) -> String {
    format!(
        "link set lo up\n\
         link add uplink type veth peer name public netns {customer}\n\
         addr add {NODE_ADDRESS}/24 dev uplink\n\
         addr add {NODE_ADDRESS_2}/24 dev uplink\n\
         link set uplink up\n\
         route add {} dev uplink src {NODE_ADDRESS}\n\
         route add default via {} dev uplink src {NODE_ADDRESS}\n",
        CUSTOMER_NETWORK, CUSTOMER_GATEWAY
    )
}

/// Masquerades executors with the allowlisted source address.
fn nat_rules() -> String {
    format!(
        "table ip rig {{\n\
           chain postrouting {{\n\
             type nat hook postrouting priority srcnat; policy accept;\n\
             oifname \"uplink\" ip saddr 10.61.0.0/16 snat to {NODE_ADDRESS}\n\
           }}\n\
         }}\n"
    )
}
