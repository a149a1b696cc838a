//! A measured client, and what every node of the benchmark needs.

use std::{fs::File, net::SocketAddrV4, time::Duration};

use anyhow::Result;
use testbed::{Executor, Rig, Sandbox};

use crate::{
    peers::cgroup_programs::cgroup,
    worker::{self, Worker},
};

/// Setting a node up takes milliseconds.
const SETUP_LIMIT: Duration = Duration::from_secs(60);

/// One client and its targets.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) worker: Worker,
    /// Its cgroup, for queries of the attached programs.
    pub(super) cgroup: File,
    /// The server, reached directly.
    pub(super) server: SocketAddrV4,
    /// The server, by the VIP, the translated address or the proxy.
    pub(super) indirect: SocketAddrV4,
}

impl Client {
    /// Starts a client on `core`.
    pub(super) fn start(
        sandbox: &Sandbox,
        core: usize,
        server: SocketAddrV4,
        indirect: SocketAddrV4,
    ) -> Result<Self> {
        let (worker, cgroup) = (Worker::client(sandbox, core)?, cgroup(sandbox)?);
        Ok(Self { worker, cgroup, server, indirect })
    }
}

/// Removes the node's address translation: it and connection tracking would dominate the figures.
pub(super) fn prepare_node(rig: &Rig) -> Result<()> {
    let commands = "nft delete table ip rig && sysctl -qw net.ipv4.tcp_max_tw_buckets=1";
    rig.node.sandbox().run(commands, SETUP_LIMIT)?.success().map(drop)
}

/// Makes routing prohibit connects to [`worker::PROHIBITED`].
pub(super) fn prohibit_port(executor: &Executor) -> Result<()> {
    let rule = format!("ip rule add ipproto tcp dport {} prohibit", worker::PROHIBITED);
    executor.sandbox().run(&rule, SETUP_LIMIT)?.success().map(drop)
}

/// The agent's configuration, with the first route.
pub(super) fn configuration() -> String {
    format!(
        "[attach]\ncgroups = [\"kubepods/podours\"]\n[dns]\nupstreams = [\"203.0.113.53:53\"]\n\
         [[routes]]\nsource = \"{}\"\ndestination = [\"10.61.1.1\"]\n",
        source(0)
    )
}

/// The source of a route.
pub(super) fn source(number: u32) -> String {
    format!("r{number}.internal.company.net")
}
