//! The ports of DNS that is intercepted at sockets, one for each listed resolver: the port
//! identifies the resolver that a query was sent to.
//!
//! They never change, and they are below 1024: no unprivileged process can take one while no agent
//! runs, and answer sockets that are connected to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use super::{bind_error::BindError, listener::Listener};
use crate::net::{InheritedSockets, socket_mark};

/// The port of slot 0: eight ports from here on are assigned to no service, and below those that
/// bindresvport(3) chooses from.
const FIRST_PORT: u16 = 334;

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
    fn new(listen: &[SocketAddr]) -> Self {
        let ipv4 = listen.iter().find_map(|address| match address.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        let ipv6 = listen.iter().find_map(|address| match address.ip() {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        });
        Self { ipv4, ipv6, first_port: FIRST_PORT }
    }

    /// Our address of the resolver's family.
    fn address_for(&self, resolver: IpAddr) -> Option<IpAddr> {
        if resolver.is_ipv4() { self.ipv4.map(IpAddr::V4) } else { self.ipv6.map(IpAddr::V6) }
    }
}

/// Binds the port of each resolver on the first address of its family, and returns the listeners by
/// address. A resolver of a family that the shim does not listen on gets none.
pub(super) fn open(
    listen: &[SocketAddr],
    by_slot: &[Option<IpAddr>],
    inherited: &mut InheritedSockets,
) -> Result<(InterceptPorts, Vec<Vec<Listener>>), BindError> {
    Socket::new(Domain::IPV4, Type::DGRAM, None)
        .and_then(|socket| socket_mark::mark(&socket))
        .map_err(BindError::Unmarked)?;
    let ports = InterceptPorts::new(listen);
    let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
    for (slot, resolver) in (0..).zip(by_slot) {
        let Some(address) = resolver.and_then(|resolver| ports.address_for(resolver)) else {
            continue;
        };
        let at = SocketAddr::new(address, FIRST_PORT + slot);
        let listener = Listener::adopt_slot(at, slot.into(), inherited)?;
        if address.is_ipv4() { ipv4.push(listener) } else { ipv6.push(listener) }
    }
    let groups = [ipv4, ipv6].into_iter().filter(|group| !group.is_empty());
    Ok((ports, groups.collect()))
}
