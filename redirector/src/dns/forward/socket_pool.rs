//! A pool of sockets that query upstreams, each query from another port.
//!
//! Creating, registering and closing a socket costs more than the query. So a socket is
//! disconnected after its reply, which frees its port, and connected again for a later query, for
//! which the kernel chooses a random port.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use crate::net::socket_mark;

/// Wakes for a packet or an ICMP error, but not when the socket is writable.
const EVENTS: Interest = Interest::READABLE.add(Interest::ERROR);
/// Sockets of each address family that are opened in advance.
const RESERVED: usize = 32;
/// Most idle sockets of each address family.
const MAX_IDLE: usize = 128;

/// The idle sockets of one runtime. A socket that is registered with another runtime would not wake
/// up in this one.
#[derive(Debug, Default)]
pub(crate) struct SocketPool {
    idle: [Mutex<Vec<AsyncFd<Socket>>>; 2],
    /// The receive buffer, shared by all sockets: a query that waits has no buffer of its own.
    buffer: Mutex<Vec<u8>>,
}

/// A socket connected to one upstream, so that the kernel drops packets from elsewhere and reports
/// ICMP errors.
#[derive(Debug)]
pub(super) struct ConnectedSocket {
    socket: AsyncFd<Socket>,
    is_ipv6: bool,
}

impl SocketPool {
    /// Opens sockets in advance, so that queries can be forwarded when the process has no free
    /// descriptor.
    pub(crate) fn reserve(&self) {
        for (family, any) in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
            .map(|ip: IpAddr| SocketAddr::new(ip, 0))
            .into_iter()
            .enumerate()
        {
            let sockets = (0..RESERVED).map_while(|_| open(any).ok());
            self.idle[family].lock().extend(sockets);
        }
    }

    /// A socket with a port of its own.
    pub(super) fn connect(&self, upstream: SocketAddr) -> io::Result<ConnectedSocket> {
        let is_ipv6 = upstream.is_ipv6();
        let idle = self.idle[usize::from(is_ipv6)].lock().pop();
        let socket = match idle {
            Some(socket) => socket,
            None => open(upstream)?,
        };
        socket.get_ref().connect(&upstream.into())?;
        Ok(ConnectedSocket { socket, is_ipv6 })
    }

    /// Waits for a packet that `accept` returns true for, and drops all others. Longer packets are
    /// truncated to `limit` bytes.
    pub(super) async fn receive(
        &self,
        connected: &ConnectedSocket,
        limit: usize,
        accept: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Vec<u8>> {
        loop {
            let mut ready = connected.socket.ready(EVENTS).await?;
            let mut buffer = self.buffer.lock();
            let length = buffer.len().max(limit);
            buffer.resize(length, 0);
            loop {
                match connected.socket.get_ref().read(&mut buffer[..limit]) {
                    Ok(length) if accept(&buffer[..length]) => {
                        // The next packet makes the socket ready again.
                        ready.clear_ready();
                        return Ok(buffer[..length].to_vec());
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        break ready.clear_ready();
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Returns a socket to the pool after its reply.
    pub(super) fn release(&self, ConnectedSocket { socket, is_ipv6 }: ConnectedSocket) {
        if rustix::net::connect_unspec(socket.get_ref()).is_ok() {
            let mut idle = self.idle[usize::from(is_ipv6)].lock();
            if idle.len() < MAX_IDLE {
                idle.push(socket);
            }
        }
    }
}

impl ConnectedSocket {
    /// Sends one packet. A full send buffer is an error, since the packet would be late.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.socket.get_ref().write(packet).map(drop)
    }
}

fn open(upstream: SocketAddr) -> io::Result<AsyncFd<Socket>> {
    let socket = Socket::new(
        Domain::for_address(upstream),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    socket_mark::mark_if_permitted(&socket);
    // SAFETY: the AsyncFd owns the socket, which has one descriptor for as long as it lives.
    unsafe { AsyncFd::register_with_interest(socket, EVENTS) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::UdpSocket};

    use super::*;

    #[tokio::test]
    async fn a_reused_socket_has_a_new_port_and_no_old_packets() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let (pool, mut ports) = (SocketPool::default(), HashSet::new());
        for round in 0..20_u8 {
            let socket = pool.connect(server.local_addr().expect("an address")).expect("connected");
            socket.send(&[round]).expect("sent");
            let mut bytes = [0; 9];
            let (length, from) = server.recv_from(&mut bytes).expect("the query");
            assert_eq!(bytes[..length], [round]);
            ports.insert(from.port());
            // The second reply must not answer the next query.
            for reply in [[round, 1], [round, 2]] {
                server.send_to(&reply, from).expect("sent");
            }
            let reply =
                pool.receive(&socket, 100, |bytes| bytes[0] == round).await.expect("a reply");
            assert_eq!(reply, [round, 1]);
            pool.release(socket);
        }
        assert!(ports.len() > 15, "{ports:?}");
        assert_eq!(pool.idle[0].lock().len(), 1);
    }

    #[tokio::test]
    async fn sockets_are_opened_in_advance_and_a_limited_number_is_kept() {
        let pool = SocketPool::default();
        let idle = || [0, 1].map(|family| pool.idle[family].lock().len());
        pool.reserve();
        assert_eq!(idle(), [RESERVED, RESERVED]);
        let server = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let at = server.local_addr().expect("an address");
        let connected = (0..MAX_IDLE + 9).map(|_| pool.connect(at).expect("connected"));
        let connected: Vec<_> = connected.collect();
        assert_eq!(idle(), [0, RESERVED]);
        connected.into_iter().for_each(|socket| pool.release(socket));
        assert_eq!(idle(), [MAX_IDLE, RESERVED]);
    }
}
