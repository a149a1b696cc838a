//! Finds the process that has a port, from /proc, for an error message.

use std::{collections::HashSet, fmt, net::SocketAddr};

use procfs::{
    ProcResult,
    net::TcpState,
    process::{FDTarget, Process, all_processes},
};

use super::transport::Transport;
use crate::printable::printable;

/// A process that has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOwner {
    /// Its process ID in our PID namespace.
    pub pid: u32,
    /// Its command name (`comm`).
    pub command: String,
}

impl fmt::Display for PortOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", printable(&self.command), self.pid)
    }
}

impl PortOwner {
    /// The process whose socket conflicts with `address`; `None` if it is in another PID namespace
    /// or its descriptors are not readable.
    pub(crate) fn find(address: SocketAddr, transport: Transport) -> Option<Self> {
        Self::in_network_of(&Process::myself().ok()?, address, transport)
    }

    /// As [`PortOwner::find`], in the network namespace of a process.
    pub(crate) fn in_network_of(
        process: &Process,
        address: SocketAddr,
        transport: Transport,
    ) -> Option<Self> {
        let inodes = conflicting_sockets(process, address, transport).ok()?;
        if inodes.is_empty() {
            return None;
        }
        all_processes().ok()?.flatten().find(|process| has_socket(process, &inodes)).map(
            |process| Self {
                pid: process.pid.unsigned_abs(),
                command: process.stat().map_or_else(|_| "a process".into(), |stat| stat.comm),
            },
        )
    }
}

/// The inodes of the sockets that prevent a process from binding `address`.
fn conflicting_sockets(
    process: &Process,
    address: SocketAddr,
    transport: Transport,
) -> ProcResult<HashSet<u64>> {
    let conflicts = |local: SocketAddr| {
        let ip = local.ip().to_canonical();
        local.port() == address.port() && (ip == address.ip() || ip.is_unspecified())
    };
    Ok(match transport {
        Transport::Udp => [process.udp(), process.udp6()]
            .into_iter()
            .flatten()
            .flatten()
            .filter(|socket| conflicts(socket.local_address))
            .map(|socket| socket.inode)
            .collect(),
        Transport::Tcp => [process.tcp(), process.tcp6()]
            .into_iter()
            .flatten()
            .flatten()
            .filter(|socket| socket.state == TcpState::Listen && conflicts(socket.local_address))
            .map(|socket| socket.inode)
            .collect(),
    })
}

fn has_socket(process: &Process, inodes: &HashSet<u64>) -> bool {
    process.fd().is_ok_and(|descriptors| {
        descriptors.flatten().any(|descriptor| {
            matches!(descriptor.target, FDTarget::Socket(inode) if inodes.contains(&inode))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_socket_belongs_to_this_process() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
        let address = socket.local_addr().expect("an address");
        let owner = PortOwner::find(address, Transport::Udp).expect("an owner");
        assert_eq!(owner.pid, std::process::id());
    }

    #[test]
    fn a_wildcard_socket_conflicts_with_every_address() {
        let listener = std::net::TcpListener::bind("[::]:0").expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let owner = PortOwner::find(SocketAddr::from(([127, 0, 0, 1], port)), Transport::Tcp)
            .expect("an owner");
        assert_eq!(owner.pid, std::process::id());
    }
}
