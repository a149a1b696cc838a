//! The whole: a control plane with one node that runs pods.

use std::time::Duration;

use anyhow::{Context as _, Result};
use testbed::{
    Rig,
    process::{Finished, until},
    service::Service,
};

use crate::{
    control_plane::ControlPlane,
    kubectl::Kubectl,
    machine::{Machine, NODE},
};

/// Longest time until the node is ready.
const READY_LIMIT: Duration = Duration::from_secs(180);

/// A Kubernetes with one node on the rig's node. Dropping it ends everything.
#[derive(Debug)]
pub struct Kubernetes {
    // Before the API server, which they use.
    machine: Machine,
    _controllers: Vec<Service>,
    control: ControlPlane,
}

impl Kubernetes {
    /// Starts it; the node is ready. Takes half a minute.
    pub fn start(rig: &Rig) -> Result<Self> {
        let mut machine = Machine::boot(rig)?;
        let control = ControlPlane::start(rig)?;
        let controllers = control.start_controllers()?;
        machine.start(&control.kubeconfig())?;
        let cluster = Self { machine, _controllers: controllers, control };
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// kubectl, as an administrator.
    pub fn kubectl(&self) -> &Kubectl {
        self.control.kubectl()
    }

    /// The control plane.
    pub fn control(&self) -> &ControlPlane {
        &self.control
    }

    /// Runs a line of shell on the node, as root.
    pub fn on_node(&self, line: &str) -> Result<Finished> {
        self.machine.run(line)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let jsonpath = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        let words = ["get", "node", NODE, "-o", jsonpath];
        let is_ready = || Ok(self.kubectl().run(&words)?.stdout == "True");
        until("the node is ready", READY_LIMIT, is_ready).with_context(|| self.machine.tails())
    }
}
