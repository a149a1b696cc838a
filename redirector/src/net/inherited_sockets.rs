//! Listening sockets that another process has opened: an agent that hands over, or the service
//! manager, which kept them for us. Queries and connections wait in them meanwhile.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{fd::AsFd, fd::OwnedFd, unix::net::UnixListener},
};

use socket2::{Domain, SockRef, Socket, Type};

use super::query_journal::{journal_file, journal_name};

/// Sockets that nothing serves yet, and the queries that their last owner has left.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    sockets: Vec<Socket>,
    journals: Vec<File>,
    /// The journals' names. They are of no use once they are read.
    journal_names: Vec<String>,
}

impl InheritedSockets {
    /// These sockets and journals. Other descriptors are closed.
    pub fn new(descriptors: impl IntoIterator<Item = OwnedFd>) -> Self {
        let is_usable =
            |socket: &Socket| socket.r#type().is_ok() && socket.set_nonblocking(true).is_ok();
        let mut inherited = Self::default();
        for descriptor in descriptors {
            match journal_file(descriptor) {
                Ok(journal) => {
                    inherited.journal_names.extend(journal_name(&journal));
                    inherited.journals.push(journal);
                }
                Err(other) => inherited.sockets.extend(Some(other.into()).filter(is_usable)),
            }
        }
        inherited
    }

    /// The journals of the last owners' queries.
    pub(crate) fn take_journals(&mut self) -> Vec<File> {
        std::mem::take(&mut self.journals)
    }

    /// The UDP socket that is bound to this address.
    pub(crate) fn udp(&mut self, address: SocketAddr) -> Option<UdpSocket> {
        let is_udp = |socket: &Socket| socket.r#type().ok() == Some(Type::DGRAM);
        self.take(|socket| is_udp(socket) && is_bound(socket, address)).map(Into::into)
    }

    /// The TCP socket that listens on this address.
    pub(crate) fn tcp(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.take(|socket| is_listener(socket) && is_bound(socket, address)).map(Into::into)
    }

    /// The socket of the control API.
    pub(crate) fn unix(&mut self) -> Option<UnixListener> {
        let is_unix = |socket: &Socket| socket.domain().ok() == Some(Domain::UNIX);
        self.take(|socket| is_unix(socket) && is_listener(socket)).map(Into::into)
    }

    /// The names of the sockets that are left and of the journals, for the service manager.
    pub(crate) fn names(&self) -> Vec<String> {
        self.sockets.iter().map(socket_name).chain(self.journal_names.iter().cloned()).collect()
    }

    fn take(&mut self, is_wanted: impl Fn(&Socket) -> bool) -> Option<Socket> {
        let index = self.sockets.iter().position(is_wanted)?;
        Some(self.sockets.swap_remove(index))
    }
}

fn is_bound(socket: &Socket, address: SocketAddr) -> bool {
    socket.local_addr().ok().and_then(|bound| bound.as_socket()) == Some(address)
}

fn is_listener(socket: &Socket) -> bool {
    socket.is_listener().unwrap_or(false)
}

/// A name without colons, as the service manager requires.
pub(crate) fn socket_name(socket: impl AsFd) -> String {
    if let Some(name) = journal_name(&socket) {
        return name;
    }
    let socket = SockRef::from(&socket);
    let Some(address) = socket.local_addr().ok().and_then(|bound| bound.as_socket()) else {
        return "control".to_owned();
    };
    let transport = if socket.r#type().ok() == Some(Type::DGRAM) { "udp" } else { "tcp" };
    format!("{transport}-{}-{}", address.ip().to_string().replace(':', "_"), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_kind_and_address() {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let address = udp.local_addr().expect("an address");
        let tcp = TcpListener::bind(address).expect("bound");
        let directory = tempfile::tempdir().expect("a directory");
        let unix = UnixListener::bind(directory.path().join("socket")).expect("bound");
        let other = TcpListener::bind("[::1]:0").expect("bound");
        let port = other.local_addr().expect("an address").port();
        let file = tempfile::tempfile().expect("a file");
        let all: [OwnedFd; 5] =
            [file.into(), tcp.into(), other.into(), unix.into(), OwnedFd::from(udp)];
        let mut sockets = InheritedSockets::new(all);
        assert!(sockets.udp("127.0.0.2:1".parse().expect("an address")).is_none());
        assert!(sockets.udp(address).is_some() && sockets.udp(address).is_none());
        assert!(sockets.tcp(address).is_some() && sockets.tcp(address).is_none());
        assert!(sockets.unix().is_some() && sockets.unix().is_none());
        assert_eq!(sockets.names(), [format!("tcp-__1-{port}")]);
    }
}
