//! Another build of the redirector, on a node of its own: `--baseline`.
//!
//! Nothing here depends on the output of that build, whose JSON may differ.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use testbed::{Agent, AgentOptions, Executor, ExecutorOptions, Rig};

use super::client::{self, Client};
use crate::worker::Worker;

/// Longest time of a DNS lookup.
const LOOKUP_LIMIT: Duration = Duration::from_secs(20);

/// Everything of the baseline that runs during the measurements. Fields are dropped in this order.
pub(super) struct Baseline {
    pub(super) client: Client,
    _server: Worker,
    _agent: Agent,
    _executor: Executor,
    _rig: Rig,
}

impl Baseline {
    /// Starts a node with this build; measured processes run on `core`.
    pub(super) fn new(binary: &Path, core: usize) -> Result<Self> {
        let rig = Rig::new()?;
        client::prepare_node(&rig)?;
        let executor = rig.executor(ExecutorOptions::pod("ours"))?;
        client::prohibit_port(&executor)?;
        let (server, port) = Worker::server(rig.node.sandbox(), core)?;
        let options = AgentOptions::with_config(binary, &client::configuration());
        let agent = Agent::start(&rig.node, options)
            .with_context(|| format!("failed to start {}", binary.display()))?;
        let direct = SocketAddrV4::new(Ipv4Addr::new(10, 61, 1, 1), port);
        let vip = SocketAddrV4::new(look_up(&executor)?, port);
        let client = Client::start(executor.sandbox(), core, direct, vip)?;
        Ok(Self { client, _server: server, _agent: agent, _executor: executor, _rig: rig })
    }
}

/// The VIP of the first route, by DNS.
fn look_up(executor: &Executor) -> Result<Ipv4Addr> {
    let name = client::source(0);
    let output = executor.run(&format!("getent ahostsv4 {name}"), LOOKUP_LIMIT)?.success()?.stdout;
    let address = output.split_whitespace().next().unwrap_or_default();
    address.parse().with_context(|| format!("{name} resolves to `{address}`"))
}
