//! Loopback addresses for servers that cannot report the port that the kernel chose for them.

use std::net::{SocketAddr, TcpListener, UdpSocket};

/// An address of 127.0.0.1 with a port that nobody uses, for UDP and TCP.
///
/// The port is below the range from which the kernel chooses one (`ip_local_port_range`), so that
/// no test that binds port 0 takes it between this call and the start of the server.
pub fn unused_address() -> SocketAddr {
    (0..1000)
        .map(|_| SocketAddr::from(([127, 0, 0, 1], rand::random_range(10_240..32_768))))
        .find(|address| TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok())
        .expect("one of a thousand random ports of 127.0.0.1 is free")
}
