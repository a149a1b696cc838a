//! Addresses as the maps store them, and back.

use std::net::{IpAddr, Ipv6Addr};

use redirector_common::addr::Ip6Be;

/// An IPv6 address as the maps store it.
pub(crate) fn ip6(address: Ipv6Addr) -> Ip6Be {
    let bytes = address.octets();
    let word =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Ip6Be([word(0), word(4), word(8), word(12)])
}

/// The inverse of [`ip6`].
pub(crate) fn from_ip6(address: Ip6Be) -> Ipv6Addr {
    let [a, b, c, d] = address.0.map(u32::from_be);
    Ipv6Addr::from_bits(
        u128::from(a) << 96 | u128::from(b) << 64 | u128::from(c) << 32 | u128::from(d),
    )
}

/// An address of either family as the maps store it: IPv4 in its mapped form.
pub(crate) fn ip(address: IpAddr) -> Ip6Be {
    match address {
        IpAddr::V4(address) => ip6(address.to_ipv6_mapped()),
        IpAddr::V6(address) => ip6(address),
    }
}

/// The inverse of [`ip`].
pub(crate) fn from_ip(address: Ip6Be) -> IpAddr {
    let address = from_ip6(address);
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}
