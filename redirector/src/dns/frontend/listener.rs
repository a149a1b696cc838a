//! The shim's sockets: UDP and TCP on every address, each bound explicitly, and errors that say
//! what to do.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::{dns::forward::Transport, net::Holder};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 256;
/// How much the kernel may queue for us, in bytes: half a second of 5,000 queries, each of which it
/// counts as 768 bytes or more, twice this in all.
const RECEIVE_BUFFER: usize = 1 << 20;
/// With port 0 the kernel chooses a UDP port; its TCP twin may be taken.
const PORT_TRIES: usize = 16;

/// Why the shim can't listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// There is nothing to listen on.
    #[error("no address to answer DNS on: set `dns.listen`")]
    NoAddress,
    /// A wildcard address.
    #[error(
        "can't answer DNS on {0}: replies could leave from an address that the client did not ask; \
            list each address in `dns.listen`"
    )]
    Unspecified(SocketAddr),
    /// Another socket has the address.
    #[error(
        "failed to bind {transport} {address}: {} uses the port; stop it, have it leave this \
            address, or change `dns.listen`",
        holder.as_ref().map_or_else(|| "another process".to_owned(), ToString::to_string)
    )]
    InUse {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        transport: &'static str,
        /// Who has it, if that can be told.
        holder: Option<Holder>,
    },
    /// The host does not have the address.
    #[error("failed to bind {transport} {address}: this host has no such address; add it (`ip \
        address add {}/{} dev lo`) or change `dns.listen`",
        address.ip(), if address.is_ipv4() { 32 } else { 128 })]
    NotLocal {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        transport: &'static str,
    },
    /// A port below 1024 without the capability.
    #[error(
        "failed to bind {transport} {address}: not permitted; the agent needs CAP_NET_BIND_SERVICE \
            for a port below 1024"
    )]
    NotPermitted {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        transport: &'static str,
    },
    /// Anything else.
    #[error("failed to bind {transport} {address}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        transport: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// An upstream is one of our own addresses.
    #[error(
        "`dns.upstreams` has {0}, which is in `dns.listen`: queries would go round in circles; \
            name the real server"
    )]
    Loop(SocketAddr),
    /// Our own queries would be intercepted, too.
    #[error(
        "our own DNS queries can't be told from those of executors: marking a socket (SO_MARK) \
            needs CAP_NET_ADMIN"
    )]
    Unmarked(#[source] io::Error),
    /// Nobody to forward to.
    #[error("no server to forward DNS to: {0}")]
    NoUpstream(String),
}

/// One address of ours.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
    /// For which resolver: a port of its own has intercepted DNS.
    pub(crate) slot: Option<u32>,
}

impl Listener {
    /// Binds UDP and TCP. Port 0 takes one that is free for both.
    pub(crate) fn bind(address: SocketAddr) -> Result<Self, BindError> {
        if address.ip().is_unspecified() {
            return Err(BindError::Unspecified(address));
        }
        let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            let udp = open(address, Transport::Udp)
                .and_then(bound_udp)
                .map_err(|error| explain(address, Transport::Udp, error))?;
            let address =
                udp.local_addr().map_err(|error| explain(address, Transport::Udp, error))?;
            match open(address, Transport::Tcp).and_then(listening) {
                Ok(tcp) => return Ok(Self { address, udp, tcp, slot: None }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
                Err(error) => return Err(explain(address, Transport::Tcp, error)),
            }
        }
    }

    /// As [`Listener::bind`], for intercepted DNS.
    pub(crate) fn of_slot(address: SocketAddr, slot: u32) -> Result<Self, BindError> {
        Ok(Self { slot: Some(slot), ..Self::bind(address)? })
    }
}

fn open(address: SocketAddr, transport: Transport) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
    };
    let socket =
        Socket::new(Domain::for_address(address), kind.nonblocking().cloexec(), Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if transport == Transport::Tcp {
        // A restart must not wait for the last connections to leave TIME-WAIT. For UDP the option
        // would let two shims share a port.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bound_udp(socket: Socket) -> io::Result<UdpSocket> {
    // Without CAP_NET_ADMIN the kernel caps it silently (net.core.rmem_max), and a small queue is
    // better than no shim.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    Ok(socket.into())
}

fn listening(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn explain(address: SocketAddr, transport: Transport, source: io::Error) -> BindError {
    let name = match transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
    };
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            BindError::InUse { address, transport: name, holder: Holder::find(address, transport) }
        }
        io::ErrorKind::AddrNotAvailable => BindError::NotLocal { address, transport: name },
        io::ErrorKind::PermissionDenied => BindError::NotPermitted { address, transport: name },
        _ => BindError::Io { address, transport: name, source },
    }
}
