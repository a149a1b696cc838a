//! The UDP and TCP socket of one address.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, Socket, Type};

use super::bind_error::BindError;
use crate::net::{InheritedSockets, Transport};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 256;
/// Receive buffer of a UDP socket, in bytes. The kernel doubles it, and counts 768 bytes or more
/// for each query: this is half a second at 5,000 queries a second.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Attempts with port 0: the kernel chooses a free UDP port, but the same TCP port may be in use.
const PORT_TRIES: usize = 16;

/// A socket of ours.
#[derive(Debug)]
pub(super) struct Endpoint<S> {
    pub(super) socket: S,
    pub(super) address: SocketAddr,
    /// The slot of the resolver whose queries arrive here, if they are intercepted.
    pub(super) slot: Option<u32>,
}

/// A TCP socket that clients connect to.
pub(super) type TcpEndpoint = Endpoint<tokio::net::TcpListener>;

/// The sockets of one address.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    udp: UdpSocket,
    tcp: TcpListener,
    slot: Option<u32>,
}

impl Listener {
    /// Binds UDP and TCP. Port 0 selects one that is free for both.
    pub(super) fn bind(address: SocketAddr) -> Result<Self, BindError> {
        if address.ip().is_unspecified() {
            return Err(BindError::Unspecified(address));
        }
        let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            let udp = open(address, Transport::Udp)
                .map(with_large_buffer)
                .map_err(|error| BindError::new(address, Transport::Udp, error))?;
            let address =
                udp.local_addr().map_err(|error| BindError::new(address, Transport::Udp, error))?;
            match open(address, Transport::Tcp).and_then(listen) {
                Ok(tcp) => return Ok(Self { address, udp, tcp, slot: None }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
                Err(error) => return Err(BindError::new(address, Transport::Tcp, error)),
            }
        }
    }

    /// As [`Listener::bind`], with the sockets that another process has opened for the address.
    pub(super) fn adopt(
        address: SocketAddr,
        inherited: &mut InheritedSockets,
    ) -> Result<Self, BindError> {
        match (inherited.udp(address), inherited.tcp(address)) {
            (Some(udp), Some(tcp)) => Ok(Self { address, udp, tcp, slot: None }),
            _ => Self::bind(address),
        }
    }

    /// As [`Listener::adopt`], for the intercepted queries of a slot.
    pub(super) fn adopt_slot(
        address: SocketAddr,
        slot: u32,
        inherited: &mut InheritedSockets,
    ) -> Result<Self, BindError> {
        Ok(Self { slot: Some(slot), ..Self::adopt(address, inherited)? })
    }

    /// Both sockets.
    pub(super) fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        [self.udp.as_fd(), self.tcp.as_fd()]
    }

    /// A second descriptor of each, to serve.
    pub(super) fn endpoints(&self) -> io::Result<(Endpoint<UdpSocket>, TcpEndpoint)> {
        let Self { address, slot, .. } = *self;
        let tcp = tokio::net::TcpListener::from_std(self.tcp.try_clone()?)?;
        let udp = self.udp.try_clone()?;
        Ok((Endpoint { socket: udp, address, slot }, Endpoint { socket: tcp, address, slot }))
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
        // A restart must not wait for connections in TIME-WAIT. For UDP the option would let two
        // shims share a port.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn with_large_buffer(socket: Socket) -> UdpSocket {
    // Without CAP_NET_ADMIN the kernel silently caps the size (net.core.rmem_max). A small buffer
    // is better than no shim.
    if set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    socket.into()
}

fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
