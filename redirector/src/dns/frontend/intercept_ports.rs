//! The ports of intercepted DNS, one for each resolver that executors query. The pods of a node may
//! have different resolvers; the port identifies the one that a query was sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use super::{bind_error::BindError, listener::Listener};
use crate::net::socket_mark;

/// The first port to try: below the kernel's ephemeral ports, and registered to no service.
const FIRST_PORT: u16 = 5310;
/// Port ranges to try if one of the ports is in use.
const MAX_RANGES: u16 = 16;

/// The endpoints of intercepted DNS: an address of each family, and the first port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterceptPorts {
    /// IPv4, if the shim has such an address.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6, if the shim has such an address.
    pub ipv6: Option<Ipv6Addr>,
    /// The port of slot 0, on both.
    pub first_port: u16,
}

impl InterceptPorts {
    /// On the first address of each family.
    fn new(listen: &[SocketAddr], first_port: u16) -> Self {
        let ipv4 = listen.iter().find_map(|address| match address.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        let ipv6 = listen.iter().find_map(|address| match address.ip() {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        });
        Self { ipv4, ipv6, first_port }
    }

    /// Binds `count` ports on each address, or none.
    fn bind(&self, count: u16) -> Result<Vec<Vec<Listener>>, BindError> {
        let addresses = [self.ipv4.map(IpAddr::from), self.ipv6.map(IpAddr::from)];
        let bind_all = |ip: IpAddr| {
            let bind = |slot: u16| {
                Listener::bind_slot(SocketAddr::new(ip, self.first_port + slot), slot.into())
            };
            (0..count).map(bind).collect()
        };
        addresses.into_iter().flatten().map(bind_all).collect()
    }
}

/// Binds `count` consecutive ports on the first address of each family, and returns the listeners
/// by address.
pub(super) fn open(
    listen: &[SocketAddr],
    count: u16,
) -> Result<(InterceptPorts, Vec<Vec<Listener>>), BindError> {
    Socket::new(Domain::IPV4, Type::DGRAM, None)
        .and_then(|socket| socket_mark::mark(&socket))
        .map_err(BindError::Unmarked)?;
    let mut ranges =
        (0..MAX_RANGES).map(|range| InterceptPorts::new(listen, FIRST_PORT + range * count));
    loop {
        let ports = ranges.next().unwrap_or_else(|| InterceptPorts::new(listen, FIRST_PORT));
        match ports.bind(count) {
            Ok(listeners) => return Ok((ports, listeners)),
            Err(BindError::InUse { .. }) if ranges.len() > 0 => {}
            Err(error) => return Err(error),
        }
    }
}
