//! One TCP connect.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{io_failure::IoFailure, timed_stream::TimedStream};

/// The outcome of the connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConnectResult {
    /// There is a connection.
    Connected { to: SocketAddr, peer: SocketAddr, local: SocketAddr, milliseconds: u64 },
    /// There is none.
    Failed { to: SocketAddr, why: IoFailure, milliseconds: u64 },
}

/// Connects as a client does.
pub(super) fn connect(to: SocketAddr, timeout: Duration) -> (Option<TimedStream>, ConnectResult) {
    let began = Instant::now();
    let connected = TimedStream::connect(to, began + timeout)
        .and_then(|stream| Ok((stream.peer_addr()?, stream.local_addr()?, stream)));
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    match connected {
        Ok((peer, local, stream)) => {
            (Some(stream), ConnectResult::Connected { to, peer, local, milliseconds })
        }
        Err(error) => {
            (None, ConnectResult::Failed { to, why: IoFailure::from_error(&error), milliseconds })
        }
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
