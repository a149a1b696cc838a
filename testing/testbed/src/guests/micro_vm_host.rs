//! A host of micro-VMs as the platform lays it out: a bridge `ignite0` with masquerading, and its
//! iptables rules.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::isolation::network;
use crate::isolation::sandbox::Sandbox;
use crate::node::Node;
use crate::{packages, process};

/// Guests may do nothing with the host, with each other, or with private networks over TCP; DNS
/// over UDP passes, and so does everything else. The chains are those of the CNI plugins.
const RULES: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:CNI-ADMIN - [0:0]
:CNI-FORWARD - [0:0]
-A INPUT -s 10.61.0.0/16 -j DROP
-A FORWARD -j CNI-FORWARD
-A CNI-FORWARD -j CNI-ADMIN
-A CNI-FORWARD -d 10.61.0.0/16 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A CNI-FORWARD -s 10.61.0.0/16 -j ACCEPT
-A CNI-ADMIN -p udp --dport 53 -j ACCEPT
-A CNI-ADMIN -s 10.61.0.0/16 -d 10.61.0.0/16 -j DROP
-A CNI-ADMIN -s 10.61.0.0/16 -d 10.0.0.0/8 -p tcp -j DROP
-A CNI-ADMIN -s 10.61.0.0/16 -d 172.16.0.0/12 -p tcp -j DROP
-A CNI-ADMIN -s 10.61.0.0/16 -d 192.168.0.0/16 -p tcp -j DROP
-A CNI-ADMIN -s 10.61.0.0/16 -d 169.254.0.0/16 -j DROP
COMMIT
";

/// Longest time of one call of iptables.
const LIMIT: Duration = Duration::from_secs(20);

/// The bridge and the rules, in a rig's node. The rig masquerades 10.61.0.0/16 already.
#[derive(Debug)]
pub struct MicroVmHost {
    pub(super) node: Sandbox,
}

impl MicroVmHost {
    /// Lays a node out for micro-VMs.
    pub fn new(node: &Node) -> Result<Self> {
        let node = node.sandbox().clone();
        node.namespaces().run(|| {
            network::ip(
                "link add ignite0 type bridge\n\
                 addr add 10.61.0.1/16 dev ignite0\n\
                 link set ignite0 up\n",
            )
        })??;
        let rules: PathBuf = node.home().join("rules.v4");
        fs::write(&rules, RULES).context("failed to write the rules of iptables")?;
        let mut restore = node.command(packages::path_of("iptables-restore")?);
        restore.arg(&rules).stdin(Stdio::null());
        process::finish(restore, LIMIT)?.success().context("failed to load the iptables rules")?;
        Ok(Self { node })
    }

    /// The packets that the rule which bars guests from the host has dropped.
    pub fn packets_to_host(&self) -> Result<u64> {
        let mut list = self.node.command(packages::path_of("iptables")?);
        list.args(["-t", "filter", "-vnx", "-L", "INPUT"]);
        let listed = process::finish(list, LIMIT)?.success()?.stdout;
        let rule = listed.lines().find(|line| line.contains("DROP") && line.contains("10.61."));
        rule.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .with_context(|| format!("iptables listed no such rule: {listed}"))
    }
}
