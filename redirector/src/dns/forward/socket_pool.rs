//! Sockets that ask upstreams, each query from another port.
//!
//! Making a socket, registering it and closing it costs more than the query. One that has its reply
//! is therefore disconnected, whereby the kernel takes its port back, and connected again for a
//! later query, whereby the kernel gives it another one at random.

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use crate::net::socket_mark;

/// A packet, or an ICMP error. That the socket could be written to is no news.
const EVENTS: Interest = Interest::READABLE.add(Interest::ERROR);
/// Idle sockets that are kept, of each family.
const KEPT: usize = 128;

/// The idle sockets of one runtime. A socket of another runtime would never wake up here.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    idle: [Mutex<Vec<AsyncFd<Socket>>>; 2],
    /// Where packets are read to, one at a time: a query that waits holds no room for a reply.
    packet: Mutex<Vec<u8>>,
}

/// A socket that has one upstream as its peer, so that the kernel drops packets from elsewhere and
/// reports ICMP errors.
#[derive(Debug)]
pub(crate) struct Asking {
    socket: AsyncFd<Socket>,
    v6: bool,
}

impl Sockets {
    /// A socket with a port of its own.
    pub(crate) fn connect(&self, upstream: SocketAddr) -> io::Result<Asking> {
        let v6 = upstream.is_ipv6();
        let idle = self.idle[usize::from(v6)].lock().unwrap_or_else(PoisonError::into_inner).pop();
        let socket = match idle {
            Some(socket) => socket,
            None => {
                let socket = Socket::new(
                    Domain::for_address(upstream),
                    Type::DGRAM.nonblocking().cloexec(),
                    Some(Protocol::UDP),
                )?;
                // Without the privilege nothing is intercepted.
                let _ = socket_mark::mark(&socket);
                // SAFETY: the AsyncFd owns the socket, which has one descriptor for as long as it
                // lives.
                unsafe { AsyncFd::register_with_interest(socket, EVENTS) }
                    .map_err(io::Error::from)?
            }
        };
        socket.get_ref().connect(&upstream.into())?;
        Ok(Asking { socket, v6 })
    }

    /// Waits for a packet that `is_it` takes, of at most `room` bytes, the rest cut off; others are
    /// left out.
    pub(crate) async fn receive(
        &self,
        asking: &Asking,
        room: usize,
        is_it: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Vec<u8>> {
        loop {
            let mut ready = asking.socket.ready(EVENTS).await?;
            let mut packet = self.packet.lock().unwrap_or_else(PoisonError::into_inner);
            if packet.len() < room {
                packet.resize(room, 0);
            }
            loop {
                match asking.socket.get_ref().read(&mut packet[..room]) {
                    Ok(length) if is_it(&packet[..length]) => {
                        // The next packet wakes us anew.
                        ready.clear_ready();
                        return Ok(packet[..length].to_vec());
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

    /// Takes a socket back that has its reply.
    pub(crate) fn give_back(&self, Asking { socket, v6 }: Asking) {
        if rustix::net::connect_unspec(socket.get_ref()).is_ok() {
            let mut idle =
                self.idle[usize::from(v6)].lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push(socket);
            }
        }
    }
}

impl Asking {
    /// Sends one packet. A full send buffer is an error: the packet would come late.
    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.socket.get_ref().write(packet).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::UdpSocket};

    use super::*;

    #[tokio::test]
    async fn a_socket_that_is_used_again_has_another_port_and_nothing_of_before() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let (sockets, mut ports) = (Sockets::default(), HashSet::new());
        for round in 0..20_u8 {
            let asking =
                sockets.connect(server.local_addr().expect("an address")).expect("connected");
            asking.send(&[round]).expect("sent");
            let mut bytes = [0; 9];
            let (length, from) = server.recv_from(&mut bytes).expect("the query");
            assert_eq!(bytes[..length], [round]);
            ports.insert(from.port());
            // One too many, which must not be the answer to the next one.
            for answer in [[round, 1], [round, 2]] {
                server.send_to(&answer, from).expect("sent");
            }
            let reply =
                sockets.receive(&asking, 100, |bytes| bytes[0] == round).await.expect("a reply");
            assert_eq!(reply, [round, 1]);
            sockets.give_back(asking);
        }
        assert!(ports.len() > 15, "{ports:?}");
        assert_eq!(sockets.idle[0].lock().expect("not poisoned").len(), 1);
    }
}
