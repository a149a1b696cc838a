//! One TCP connect.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// How a system call failed, as far as it leads to different causes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Io {
    /// Nothing came in time.
    TimedOut,
    /// The other side, or a program of ours, refused.
    Refused,
    /// A route, a firewall or the guard says that there is no way.
    Unreachable,
    /// The kernel forbids it: so do programs of ours below 6.1, and policies of others.
    NotPermitted,
    /// The other side has closed, with or without a reset.
    Closed,
    /// Anything else, in the system's words.
    Other(String),
}

impl Io {
    pub(super) fn of(error: &io::Error) -> Self {
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock, _) => Self::TimedOut,
            (io::ErrorKind::ConnectionRefused, _) => Self::Refused,
            (io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable, _) => {
                Self::Unreachable
            }
            (io::ErrorKind::PermissionDenied, _) => Self::NotPermitted,
            (
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof,
                _,
            ) => Self::Closed,
            _ => Self::Other(error.to_string()),
        }
    }

    /// In words.
    pub(crate) fn words(&self) -> &str {
        match self {
            Self::TimedOut => "no answer in time",
            Self::Refused => "connection refused",
            Self::Unreachable => "no route to host",
            Self::NotPermitted => "operation not permitted",
            Self::Closed => "closed by the other side",
            Self::Other(words) => words,
        }
    }
}

/// What came of the connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConnectSeen {
    /// There is a connection.
    Connected { to: SocketAddr, peer: SocketAddr, local: SocketAddr, milliseconds: u64 },
    /// There is none.
    Failed { to: SocketAddr, why: Io, milliseconds: u64 },
}

/// Connects as a client does, and bounds what follows on the stream by the same patience.
pub(super) fn connect(to: SocketAddr, patience: Duration) -> (Option<TcpStream>, ConnectSeen) {
    let began = Instant::now();
    let connected = TcpStream::connect_timeout(&to, patience).and_then(|stream| {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok((stream.peer_addr()?, stream.local_addr()?, stream))
    });
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    match connected {
        Ok((peer, local, stream)) => {
            (Some(stream), ConnectSeen::Connected { to, peer, local, milliseconds })
        }
        Err(error) => (None, ConnectSeen::Failed { to, why: Io::of(&error), milliseconds }),
    }
}

/// The source address that this network takes towards `target`. A UDP connect sends nothing.
pub(crate) fn source_towards(target: SocketAddr) -> Option<IpAddr> {
    let unspecified: IpAddr =
        if target.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((unspecified, 0)).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
