//! Where the peers run: a node with the backends, and an executor for each peer.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::Result;
use testbed::{Executor, ExecutorOptions, Rig};

use super::peer::BACKENDS;
use crate::worker::Worker;

/// Setting a node up takes milliseconds.
const SETUP_LIMIT: Duration = Duration::from_secs(60);

/// A node whose loopback has the backends' addresses, with a server behind them. Every executor
/// reaches them over one veth pair, without address translation.
pub(crate) struct Site {
    _server: Worker,
    /// Where the server listens, at every address.
    pub(crate) port: u16,
    /// The core of server and clients.
    pub(crate) core: usize,
    pub(crate) rig: Rig,
}

impl Site {
    /// Starts the node and its server, which serves so many connections at the same time.
    pub(crate) fn new(core: usize, threads: usize) -> Result<Self> {
        let rig = Rig::new()?;
        let [first, second] = BACKENDS;
        // Address translation would dominate the figures, and sockets in TIME_WAIT slow the server.
        let commands = format!(
            "nft delete table ip rig && sysctl -qw net.ipv4.tcp_max_tw_buckets=1 \
             net.core.somaxconn=16384 net.ipv4.tcp_max_syn_backlog=16384 && \
             ip addr add {first}/32 dev lo && ip addr add {second}/32 dev lo"
        );
        rig.node.sandbox().run(&commands, SETUP_LIMIT)?.success()?;
        let (server, port) = Worker::server_of(rig.node.sandbox(), core, threads)?;
        Ok(Self { _server: server, port, core, rig })
    }

    /// A new executor. The first one is behind the node's interface `pod1`.
    pub(crate) fn executor(&self, name: &str) -> Result<Executor> {
        self.rig.executor(ExecutorOptions::pod(name))
    }

    /// A backend with the server's port.
    pub(crate) fn backend(&self, address: Ipv4Addr) -> SocketAddrV4 {
        SocketAddrV4::new(address, self.port)
    }
}
