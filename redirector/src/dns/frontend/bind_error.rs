//! Why the shim cannot start, with the remedy.

use std::{io, net::SocketAddr};

use crate::net::{PortOwner, Transport};

/// Why the shim cannot listen, or what its new settings lack.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// `dns.listen` is empty.
    #[error("no address to answer DNS on: set `dns.listen`")]
    NoAddress,
    /// A wildcard address.
    #[error(
        "cannot answer DNS on {0}: replies could leave from an address that the client did not \
            query; list each address in `dns.listen`"
    )]
    Unspecified(SocketAddr),
    /// Another socket has the address.
    #[error(
        "failed to bind {transport} {address}: {} uses the port; stop it, make it leave this \
            address, or change `dns.listen`",
        owner.as_ref().map_or_else(|| "another process".to_owned(), ToString::to_string)
    )]
    InUse {
        /// The address.
        address: SocketAddr,
        /// The transport.
        transport: Transport,
        /// The process, if it is visible.
        owner: Option<PortOwner>,
    },
    /// The host does not have the address.
    #[error(
        "failed to bind {transport} {address}: this host has no such address; add it (`ip address \
            add {}/{} dev lo`) or change `dns.listen`",
        address.ip(), if address.is_ipv4() { 32 } else { 128 }
    )]
    NotLocal {
        /// The address.
        address: SocketAddr,
        /// The transport.
        transport: Transport,
    },
    /// A port below 1024 without the capability.
    #[error(
        "failed to bind {transport} {address}: not permitted; the agent needs CAP_NET_BIND_SERVICE \
            for a port below 1024"
    )]
    NotPermitted {
        /// The address.
        address: SocketAddr,
        /// The transport.
        transport: Transport,
    },
    /// Any other failure.
    #[error("failed to bind {transport} {address}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// The transport.
        transport: Transport,
        /// The kernel's error.
        source: io::Error,
    },
    /// An upstream is one of our own addresses.
    #[error(
        "`dns.upstreams` contains {0}, which is in `dns.listen`: queries would loop; name the real \
            server"
    )]
    Loop(SocketAddr),
    /// Our own queries would be intercepted, too.
    #[error("cannot mark our own DNS queries (SO_MARK): interception needs CAP_NET_ADMIN")]
    Unmarked(#[source] io::Error),
    /// There is no upstream.
    #[error("no server to forward DNS to: {0}")]
    NoUpstream(String),
}

impl BindError {
    /// The variant for an error of socket(), bind() or listen().
    pub(super) fn new(address: SocketAddr, transport: Transport, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                let owner = PortOwner::find(address, transport);
                Self::InUse { address, transport, owner }
            }
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { address, transport },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { address, transport },
            _ => Self::Io { address, transport, source },
        }
    }
}
