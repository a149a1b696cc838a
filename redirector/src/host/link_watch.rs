//! Notices at once that interfaces come, change and go: the kernel's multicast messages.

use std::io;

use rtnetlink::{
    packet_core::NetlinkPayload,
    packet_route::{AddressFamily, RouteNetlinkMessage},
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{host::links::Link, net::route_socket};

/// The multicast group of links (`RTMGRP_LINK`).
const LINKS: u32 = 1;

/// Receive buffer: a message takes about 2 KiB, so some thousand interfaces may appear at once.
const RECEIVE_BUFFER: u32 = 8 << 20;

/// A datagram of the kernel.
const DATAGRAM: usize = 64 * 1024;

/// Datagrams that are read in one step.
const MAX_DATAGRAMS: usize = 256;

/// A change of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// It is new, or something of it has changed.
    Present(Link),
    /// It is gone, or was moved to another namespace.
    Gone(u32),
}

/// Changes since the last call.
#[derive(Debug, Default)]
pub struct LinkChanges {
    /// In their order.
    pub changes: Vec<LinkChange>,
    /// Whether some were lost, so that all interfaces must be listed.
    pub lost: bool,
}

/// Watches the interfaces of the network namespace that it was made in.
#[derive(Debug)]
pub struct LinkWatch {
    socket: AsyncFd<Socket>,
}

impl LinkWatch {
    /// Begins to watch. Needs the runtime of tokio.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the socket.
    pub fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, LINKS))?;
        socket.set_non_blocking(true)?;
        // Beyond the limit of the host, which takes CAP_NET_ADMIN.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER as usize)
            .is_err()
        {
            socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
        }
        // SAFETY: the AsyncFd owns the socket, whose descriptor stays the same for as long as it
        // lives.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket })
    }

    /// Returns when there are changes.
    pub async fn changed(&self) {
        if self.socket.readable().await.is_err() {
            std::future::pending().await
        }
    }

    /// The changes since the last call, or the oldest of very many.
    pub fn take(&self) -> LinkChanges {
        let mut all = LinkChanges::default();
        let mut buffer = Vec::with_capacity(DATAGRAM);
        for _ in 0..MAX_DATAGRAMS {
            buffer.clear();
            let read = self.socket.try_io(Interest::READABLE, |socket| socket.recv(&mut buffer, 0));
            match read {
                Ok(_) => add(&mut all, &buffer),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => all.lost = true,
                // Nothing is left to read.
                Err(_) => break,
            }
        }
        all
    }
}

fn add(all: &mut LinkChanges, datagram: &[u8]) {
    for message in route_socket::messages(datagram) {
        let Ok(message) = message else {
            all.lost = true;
            continue;
        };
        let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
        match message {
            // A bridge reports its ports in its own family: one that leaves it is not gone.
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)
                if link.header.interface_family != AddressFamily::Unspec => {}
            RouteNetlinkMessage::NewLink(link) => {
                all.changes.push(LinkChange::Present(Link::new(&link)));
            }
            RouteNetlinkMessage::DelLink(link) => {
                all.changes.push(LinkChange::Gone(link.header.index));
            }
            _ => {}
        }
    }
}
