//! The network interfaces of the namespace that the agent runs in.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        InfoData, InfoNetkit, LinkAttribute, LinkExtentMask, LinkInfo, LinkLayerType, LinkMessage,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage},
};

use crate::{error::known, net::route_socket::RouteSocket};

/// Public addresses whose routes are looked up; no packet is sent.
const PUBLIC_ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, 0x1111)),
];

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind, as `ip -d link` shows it: `veth`, `tun`, `bridge`; empty for a physical one.
    pub kind: String,
    /// Whether it is a loopback interface.
    pub is_loopback: bool,
    /// Whether its packets have an Ethernet header.
    pub has_ethernet: bool,
    /// The index of the bridge, bond or team that it is a port of.
    pub controller: Option<u32>,
    /// The index of the other end of a veth or netkit, or of the parent of a VLAN or macvlan.
    pub peer: Option<u32>,
    /// Whether that one is in another network namespace.
    pub peer_is_elsewhere: bool,
    /// Whether it is the primary end of a netkit.
    pub is_netkit_primary: bool,
}

impl Link {
    pub(crate) fn new(message: &LinkMessage) -> Self {
        let layer = message.header.link_layer_type;
        let mut link = Self {
            index: message.header.index,
            is_loopback: layer == LinkLayerType::Loopback,
            has_ethernet: matches!(layer, LinkLayerType::Ether | LinkLayerType::Loopback),
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Controller(index) => link.controller = Some(*index),
                LinkAttribute::Link(index) => link.peer = Some(*index),
                LinkAttribute::LinkNetNsId(_) => link.peer_is_elsewhere = true,
                LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| link.add(info)),
                _ => {}
            }
        }
        link
    }

    fn add(&mut self, info: &LinkInfo) {
        match info {
            LinkInfo::Kind(kind) => self.kind = kind.to_string(),
            LinkInfo::Data(InfoData::Netkit(data)) => {
                self.is_netkit_primary = data.contains(&InfoNetkit::Primary(true));
            }
            _ => {}
        }
    }
}

/// Every interface of the calling thread's network namespace.
///
/// # Errors
///
/// If the kernel does not list them.
pub fn links() -> io::Result<Vec<Link>> {
    list_links(&mut RouteSocket::open()?)
}

/// As [`links`], in the network namespace of the socket.
pub(super) fn list_links(socket: &mut RouteSocket) -> io::Result<Vec<Link>> {
    let mut request = LinkMessage::default();
    // Statistics are most of what the kernel would write.
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let listed = socket.list(RouteNetlinkMessage::GetLink(request))?;
    Ok(listed.iter().filter_map(link_of).collect())
}

/// One interface; none if it is gone.
///
/// # Errors
///
/// If the kernel refuses the request.
pub(crate) fn link(index: u32) -> io::Result<Option<Link>> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    match RouteSocket::open()?.get(RouteNetlinkMessage::GetLink(request)) {
        Ok(reply) => Ok(reply.as_ref().and_then(link_of)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn link_of(message: &RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(Link::new(link)),
        _ => None,
    }
}

/// The interfaces through which this host reaches public addresses: its uplinks, as far as routes
/// show them.
///
/// # Errors
///
/// If this host lacks descriptors or memory for the question: then nothing is known.
pub fn uplinks() -> io::Result<BTreeSet<u32>> {
    list_uplinks(&mut RouteSocket::open()?)
}

/// As [`uplinks`], in the network namespace of the socket.
pub(super) fn list_uplinks(socket: &mut RouteSocket) -> io::Result<BTreeSet<u32>> {
    let mut uplinks = BTreeSet::new();
    for address in PUBLIC_ADDRESSES {
        // Without a route the kernel answers an error.
        if let Some(Some(RouteNetlinkMessage::NewRoute(route))) =
            known(socket.get(route_request(address)))?
        {
            uplinks.extend(output_interface(&route));
        }
    }
    Ok(uplinks)
}

/// The index of the interface out of which a route leads.
pub(super) fn output_interface(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// The request for the route to an address.
pub(super) fn route_request(address: IpAddr) -> RouteNetlinkMessage {
    let mut request = RouteMessage::default();
    let (family, length, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
    };
    request.header.address_family = family;
    request.header.destination_prefix_length = length;
    request.attributes.push(RouteAttribute::Destination(destination));
    RouteNetlinkMessage::GetRoute(request)
}
