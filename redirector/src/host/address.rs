//! The shim's address: added to `lo` if the host lacks it, and removed again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{
    host::netlink::{HostError, to_io, with_netlink},
    net::route_socket::RouteSocket,
};

/// The label of our addresses (`ip address` shows it): the name of the device and a suffix, at most
/// 15 bytes in all.
const LABEL: &str = "lo:redirector";

/// The discard port: any port would do.
const DISCARD: u16 = 9;

/// The index of `lo` in every network namespace.
const LO: u32 = 1;

/// The result of [`ensure_address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddedAddress {
    /// We have added it to `lo` now.
    Added,
    /// We have added it to `lo` in an earlier run, and may remove it.
    Ours,
    /// The host has it, and we must not remove it.
    Host,
}

/// Ensures that the host has `ip`. Loopback and unspecified addresses always exist.
///
/// # Errors
///
/// [`HostError::Address`] if it can't be added, [`HostError::Netlink`] if the addresses can't be
/// listed.
pub async fn ensure_address(ip: IpAddr) -> Result<AddedAddress, HostError> {
    if ip.is_loopback() || ip.is_unspecified() {
        return Ok(AddedAddress::Host);
    }
    let found = |existing: &AddressMessage| {
        if is_ours(existing) { AddedAddress::Ours } else { AddedAddress::Host }
    };
    if let Some(existing) = find_on_lo(ip) {
        return Ok(found(&existing));
    }
    with_netlink(async |handle| {
        if let Some(existing) = find(&handle, ip).await? {
            return Ok(found(&existing));
        }
        let length = if ip.is_ipv4() { 32 } else { 128 };
        let mut request = handle.address().add(LO, ip, length);
        let message = request.message_mut();
        if ip.is_ipv4() {
            message.attributes.push(AddressAttribute::Label(LABEL.into()));
            // A full-length prefix has no broadcast address; the library adds one that equals the
            // address.
            message
                .attributes
                .retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
        }
        request
            .execute()
            .await
            .map_err(|error| HostError::Address { address: ip, source: to_io(error) })?;
        Ok(AddedAddress::Added)
    })
    .await
}

/// Removes `ip` from `lo` if the agent added it. Returns whether it did.
///
/// # Errors
///
/// [`HostError::Netlink`] if the kernel refuses.
pub async fn remove_address(ip: IpAddr) -> Result<bool, HostError> {
    with_netlink(async |handle| {
        let Some(existing) = find(&handle, ip).await?.filter(is_ours) else { return Ok(false) };
        let removed = handle.address().del(existing).execute().await;
        removed.map_err(|error| HostError::netlink(format!("remove {ip} from lo"), error))?;
        Ok(true)
    })
    .await
}

/// Whether a socket can be bound to `ip`: this network namespace has the address, or allows binding
/// to any (`ip_nonlocal_bind`).
pub fn has_address(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Whether this network namespace has a route to `ip`. Nothing is sent.
pub fn has_route(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // connect() of a UDP socket only looks the route up.
    let connected = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((ip, DISCARD)));
    connected.is_ok()
}

async fn find(handle: &Handle, ip: IpAddr) -> Result<Option<AddressMessage>, HostError> {
    let listed: Result<Vec<AddressMessage>, _> =
        handle.address().get().execute().try_collect().await;
    let addresses =
        listed.map_err(|error| HostError::netlink("list the addresses of this host", error))?;
    Ok(addresses.into_iter().find(|message| has(message, ip)))
}

/// As [`find`] where it usually is, without a task and a list of all addresses: this is asked every
/// second. None if `lo` does not have it, or the kernel refuses.
fn find_on_lo(ip: IpAddr) -> Option<AddressMessage> {
    let mut request = AddressMessage::default();
    request.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    request.header.index = LO;
    let listed = RouteSocket::open()
        .and_then(|mut socket| socket.list(RouteNetlinkMessage::GetAddress(request)));
    listed.ok()?.into_iter().find_map(|message| match message {
        RouteNetlinkMessage::NewAddress(message) if has(&message, ip) => Some(message),
        _ => None,
    })
}

fn has(message: &AddressMessage, ip: IpAddr) -> bool {
    message.attributes.iter().any(|attribute| match attribute {
        AddressAttribute::Local(address) | AddressAttribute::Address(address) => *address == ip,
        _ => false,
    })
}

/// IPv6 addresses have no labels; one on `lo` with a full-length prefix is assumed to be ours.
fn is_ours(message: &AddressMessage) -> bool {
    let labelled = message
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, AddressAttribute::Label(label) if label == LABEL));
    labelled || (message.header.index == LO && message.header.prefix_len == 128)
}
