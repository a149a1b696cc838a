//! A container with a macvlan interface: a child of the node's uplink, whose packets pass no
//! interface of their own on the node.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::guest::Guest;
use crate::isolation::mounts::{ResolvConf, View};
use crate::isolation::namespaces::Namespaces;
use crate::isolation::network;
use crate::isolation::sandbox::Sandbox;
use crate::process::Finished;
use crate::rig::Rig;
use crate::topology::{CUSTOMER_GATEWAY, CUSTOMER_NETWORK, NODE_ADDRESS_2};

/// A pod in `kubepods`, as Multus makes it. It has the node's second address, which the load
/// balancers admit.
#[derive(Debug)]
pub struct Macvlan {
    sandbox: Sandbox,
}

impl Macvlan {
    /// Makes it; the node gives its second address away.
    pub fn new(rig: &Rig, resolv: &ResolvConf) -> Result<Self> {
        let node = rig.node.sandbox();
        let stage = node.scope().folder("stage-macvlan")?;
        let namespaces =
            Namespaces::create(|| View::new(&stage, resolv)?.trust(rig.customer.ca_pem()))
                .context("failed to make a pod with a macvlan interface")?;
        let path = namespaces.net_path();
        node.namespaces().run(|| {
            network::ip(&format!(
                "addr del {NODE_ADDRESS_2}/24 dev uplink\n\
                 link add link uplink name child type macvlan mode bridge\n\
                 link set child netns {path}\n"
            ))
        })??;
        namespaces.run(|| {
            network::ip(&format!(
                "link set lo up\n\
                 link set child name eth0\n\
                 addr add {NODE_ADDRESS_2}/24 dev eth0\n\
                 link set eth0 up\n\
                 route add {CUSTOMER_NETWORK} dev eth0\n\
                 route add default via {CUSTOMER_GATEWAY} dev eth0\n"
            ))
        })??;
        let cgroup = Path::new(crate::node::ROOT).join("kubepods/podmacvlan");
        let sandbox = Sandbox::new(node.scope(), Arc::new(namespaces), &cgroup, "macvlan")?;
        Ok(Self { sandbox })
    }

    /// Where its processes run.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Guest for Macvlan {
    fn run(&self, line: &str, limit: Duration) -> Result<Finished> {
        self.sandbox.run(line, limit)
    }
}
