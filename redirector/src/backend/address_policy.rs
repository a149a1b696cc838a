//! Which addresses a name may lead to. The owner of a zone could otherwise send an executor to
//! itself, to this node's metadata, or back to us.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::pool::Pool;

/// Addresses of clouds' instance metadata that are not link-local.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254)),
];

/// An address that a name led to and that is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RejectedAddress {
    /// The address.
    pub address: IpAddr,
    /// Why it is not used.
    pub reason: RejectReason,
}

/// Why an address is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RejectReason {
    /// `0.0.0.0/8` or `::`, with which filters answer for a blocked name.
    Unspecified,
    /// `127.0.0.0/8` or `::1`.
    Loopback,
    /// `169.254.0.0/16`, which has the instance metadata of clouds, or `fe80::/10`.
    LinkLocal,
    /// Another address of instance metadata.
    Metadata,
    /// `224.0.0.0/4` or `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// `240.0.0.0/4`.
    Reserved,
    /// An IPv4 address in IPv6 notation.
    Embedded,
    /// A virtual address.
    Pool,
    /// An address at which we answer DNS.
    Own,
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Metadata => "instance metadata",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Reserved => "reserved",
            Self::Embedded => "IPv4 in IPv6 notation",
            Self::Pool => "in the pool of virtual addresses",
            Self::Own => "where we answer DNS",
        })
    }
}

impl fmt::Display for RejectedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.address, self.reason)
    }
}

/// Decides which addresses a name may lead to.
#[derive(Debug)]
pub(super) struct AddressPolicy {
    pool: Pool,
    /// Where we answer DNS.
    own: Vec<IpAddr>,
}

impl AddressPolicy {
    pub(super) fn new(pool: Pool, own: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { pool, own: own.into_iter().collect() }
    }

    /// Why an address is not used; `None` if it is.
    pub(super) fn objection(&self, address: IpAddr) -> Option<RejectReason> {
        let of_range = match address {
            IpAddr::V4(v4) => of_v4(v4),
            IpAddr::V6(v6) => of_v6(v6),
        };
        of_range
            .or_else(|| METADATA.contains(&address).then_some(RejectReason::Metadata))
            .or_else(|| self.pool.contains(address).then_some(RejectReason::Pool))
            .or_else(|| self.own.contains(&address).then_some(RejectReason::Own))
    }

    /// Separates the addresses that are used from the others.
    pub(super) fn partition(
        &self,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> (Vec<IpAddr>, Vec<RejectedAddress>) {
        let (mut used, mut rejected) = (Vec::new(), Vec::new());
        for address in addresses {
            match self.objection(address) {
                None => used.push(address),
                Some(reason) => rejected.push(RejectedAddress { address, reason }),
            }
        }
        (used, rejected)
    }
}

fn of_v4(address: Ipv4Addr) -> Option<RejectReason> {
    match address.octets() {
        [0, ..] => Some(RejectReason::Unspecified),
        [127, ..] => Some(RejectReason::Loopback),
        [169, 254, ..] => Some(RejectReason::LinkLocal),
        [224..=239, ..] => Some(RejectReason::Multicast),
        [255, 255, 255, 255] => Some(RejectReason::Broadcast),
        [240..=255, ..] => Some(RejectReason::Reserved),
        _ => None,
    }
}

fn of_v6(address: Ipv6Addr) -> Option<RejectReason> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(RejectReason::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(RejectReason::Loopback),
        // The IPv4 address has an A record, or is here to pass as something else.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] => Some(RejectReason::Embedded),
        [0xfe80..=0xfebf, ..] => Some(RejectReason::LinkLocal),
        [0xff00..=0xffff, ..] => Some(RejectReason::Multicast),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_hosts_only() {
        let pool = Pool::new(
            "198.18.0.0/16".parse().expect("a network"),
            Some("fd00:1::/112".parse().expect("a network")),
            true,
        );
        let own = ["192.0.2.53".parse().expect("an address")];
        let policy = AddressPolicy::new(pool.expect("a pool"), own);
        let reason = |text: &str| policy.objection(text.parse().expect("an address"));
        for used in [
            "203.0.113.7",
            "10.0.0.1",
            "223.255.255.255",
            "169.253.0.1",
            "100.100.100.201",
            "2001:db8::7",
            "fd00:ec2::255",
            "64:ff9b::203.0.113.7",
        ] {
            assert_eq!(reason(used), None, "{used}");
        }
        for (rejected, expected) in [
            ("0.0.0.0", RejectReason::Unspecified),
            ("0.1.2.3", RejectReason::Unspecified),
            ("::", RejectReason::Unspecified),
            ("127.0.0.1", RejectReason::Loopback),
            ("127.255.0.3", RejectReason::Loopback),
            ("::1", RejectReason::Loopback),
            ("169.254.169.254", RejectReason::LinkLocal),
            ("fe80::1", RejectReason::LinkLocal),
            ("febf::1", RejectReason::LinkLocal),
            ("100.100.100.200", RejectReason::Metadata),
            ("fd00:ec2::254", RejectReason::Metadata),
            ("224.0.0.1", RejectReason::Multicast),
            ("ff02::1", RejectReason::Multicast),
            ("255.255.255.255", RejectReason::Broadcast),
            ("240.0.0.1", RejectReason::Reserved),
            ("255.255.255.254", RejectReason::Reserved),
            ("::ffff:127.0.0.1", RejectReason::Embedded),
            ("::ffff:203.0.113.7", RejectReason::Embedded),
            ("::169.254.169.254", RejectReason::Embedded),
            ("198.18.4.4", RejectReason::Pool),
            ("fd00:1::9", RejectReason::Pool),
            ("192.0.2.53", RejectReason::Own),
        ] {
            assert_eq!(reason(rejected), Some(expected), "{rejected}");
        }
    }
}
