//! The interface of this host that leads to a container's address.

use std::{io, net::IpAddr};

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::RouteAttribute,
};

use crate::{
    host::links::{Link, link, output_interface, route_request},
    net::route_socket::RouteSocket,
};

/// The index of the interface at which a container with this address is connected; none if the
/// address is reached by a gateway, or a bridge has not learned its port.
///
/// # Errors
///
/// If no netlink socket can be opened.
pub fn interface_towards(address: IpAddr) -> io::Result<Option<u32>> {
    let mut socket = RouteSocket::open()?;
    // Without a route the kernel answers an error.
    let Some(RouteNetlinkMessage::NewRoute(route)) =
        socket.get(route_request(address)).ok().flatten()
    else {
        return Ok(None);
    };
    if route.attributes.iter().any(|at| matches!(at, RouteAttribute::Gateway(_))) {
        return Ok(None);
    }
    let output = output_interface(&route);
    let Some(Link { index, kind, .. }) = output.and_then(|index| link(index).ok().flatten()) else {
        return Ok(None);
    };
    if kind != "bridge" {
        return Ok(Some(index));
    }
    let Some(hardware) = hardware_address(&mut socket, index, address) else { return Ok(None) };
    Ok(bridge_port(&mut socket, index, &hardware))
}

/// The hardware address of a neighbour.
fn hardware_address(socket: &mut RouteSocket, bridge: u32, address: IpAddr) -> Option<Vec<u8>> {
    let mut request = NeighbourMessage::default();
    request.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    request.header.ifindex = bridge;
    let wanted = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    request.attributes.push(NeighbourAttribute::Destination(wanted));
    let reply = socket.get(RouteNetlinkMessage::GetNeighbour(request)).ok().flatten()?;
    let RouteNetlinkMessage::NewNeighbour(neighbour) = reply else { return None };
    hardware(&neighbour).cloned()
}

/// The port of a bridge behind which it has learned this hardware address.
fn bridge_port(socket: &mut RouteSocket, bridge: u32, address: &[u8]) -> Option<u32> {
    let mut request = NeighbourMessage::default();
    request.header.family = AddressFamily::Bridge;
    let learned = socket.list(RouteNetlinkMessage::GetNeighbour(request)).ok()?;
    learned.iter().find_map(|message| {
        let RouteNetlinkMessage::NewNeighbour(entry) = message else { return None };
        let controller = entry.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Controller(index) => Some(*index),
            _ => None,
        });
        let port = entry.header.ifindex;
        let is_it = controller == Some(bridge)
            && port != bridge
            && hardware(entry).is_some_and(|found| found == address);
        is_it.then_some(port)
    })
}

fn hardware(neighbour: &NeighbourMessage) -> Option<&Vec<u8>> {
    neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(address) => Some(address),
        _ => None,
    })
}
