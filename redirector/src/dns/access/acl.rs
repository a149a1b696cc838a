//! The access list: local clients and the networks in the configuration are answered, others are
//! refused, so that nobody can use the shim to attack a third party.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::{config::DnsClients, net::LocalNetworks};

/// How a client is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientClass {
    /// This host itself: answered without a rate limit.
    Host,
    /// Answered.
    Allowed,
    /// Answered with real instead of virtual addresses, since no hook sees its connects.
    RealAddresses,
    /// Refused.
    Denied,
}

/// The configured access list.
#[derive(Debug)]
pub(crate) struct Acl {
    allows_local: bool,
    networks: Vec<IpNet>,
    real_address_networks: Vec<IpNet>,
    local_networks: LocalNetworks,
}

impl Acl {
    pub(crate) fn new(clients: &[DnsClients], real_address_networks: &[IpNet]) -> Self {
        let listed = |client: &DnsClients| match client {
            DnsClients::Local => None,
            DnsClients::Network(network) => Some(*network),
        };
        Self {
            allows_local: clients.contains(&DnsClients::Local),
            networks: clients.iter().filter_map(listed).collect(),
            real_address_networks: real_address_networks.to_vec(),
            local_networks: LocalNetworks::default(),
        }
    }

    /// The class of the client at `address` that queried our address `own`.
    pub(crate) fn classify(&self, address: IpAddr, own: IpAddr) -> ClientClass {
        let in_any = |networks: &[IpNet]| networks.iter().any(|net| net.contains(&address));
        if in_any(&self.real_address_networks) {
            ClientClass::RealAddresses
        } else if self.allows_local && (address == own || address.is_loopback()) {
            ClientClass::Host
        } else if in_any(&self.networks)
            || self.allows_local && (is_private(address) || self.local_networks.contains(address))
        {
            ClientClass::Allowed
        } else {
            ClientClass::Denied
        }
    }
}

/// Whether the address is not routed on the Internet: RFC 1918, the shared range of RFC 6598,
/// link-local and unique local.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_private()
                || v4.is_link_local()
                || v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6.is_unique_local() || v6 == Ipv6Addr::LOCALHOST
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classify(acl: &Acl, address: &str) -> ClientClass {
        acl.classify(address.parse().expect("an address"), IpAddr::from([198, 51, 100, 9]))
    }

    #[test]
    fn private_addresses_and_the_host_are_local() {
        let pods = vec!["203.0.113.0/26".parse().expect("a network")];
        let acl = Acl {
            local_networks: LocalNetworks::fixed(pods),
            ..Acl::new(&[DnsClients::Local], &[])
        };
        for local in [
            "10.61.0.7",
            "172.17.0.2",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.20.53",
            "fe80::1",
            "fd00::1",
            "203.0.113.9",
        ] {
            assert_eq!(classify(&acl, local), ClientClass::Allowed, "{local}");
        }
        for own in ["127.0.0.1", "127.8.8.8", "::1", "198.51.100.9"] {
            assert_eq!(classify(&acl, own), ClientClass::Host, "{own}");
        }
        for foreign in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "100.63.255.255",
            "192.0.2.1",
            "203.0.113.64",
            "2001:db8::1",
            "::",
        ] {
            assert_eq!(classify(&acl, foreign), ClientClass::Denied, "{foreign}");
        }
    }

    #[test]
    fn without_local_only_listed_networks_are_answered() {
        let network = |text: &str| text.parse::<IpNet>().expect("a network");
        let acl =
            Acl::new(&[DnsClients::Network(network("203.0.113.0/24"))], &[network("10.61.0.0/16")]);
        assert_eq!(classify(&acl, "203.0.113.9"), ClientClass::Allowed);
        assert_eq!(classify(&acl, "10.61.0.9"), ClientClass::RealAddresses);
        for other in ["127.0.0.1", "10.0.0.1", "198.51.100.9"] {
            assert_eq!(classify(&acl, other), ClientClass::Denied, "{other}");
        }
    }
}
