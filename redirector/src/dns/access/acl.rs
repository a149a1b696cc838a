//! Who is answered: the clients that are local, and the networks that the configuration lists.
//! Nobody can use us against a third party.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::{config::DnsClients, net::HostNetworks};

/// What a client is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// This host itself, whom no limit of rate would protect.
    Host,
    /// Answered.
    Served,
    /// Answered, with real addresses in the place of virtual ones, since no hook sees its connects.
    Guest,
    /// Refused.
    Stranger,
}

/// The rule, as configured.
#[derive(Debug)]
pub(crate) struct Access {
    local: bool,
    networks: Vec<IpNet>,
    guests: Vec<IpNet>,
    host: HostNetworks,
}

impl Access {
    pub(crate) fn new(clients: &[DnsClients], guests: &[IpNet]) -> Self {
        let listed = |client: &DnsClients| match client {
            DnsClients::Local => None,
            DnsClients::Network(network) => Some(*network),
        };
        Self {
            local: clients.contains(&DnsClients::Local),
            networks: clients.iter().filter_map(listed).collect(),
            guests: guests.to_vec(),
            host: HostNetworks::default(),
        }
    }

    /// What the client at `address` is, when it asked our address `own`. Guests are listed, hence
    /// answered.
    pub(crate) fn of(&self, address: IpAddr, own: IpAddr) -> Client {
        if self.guests.iter().any(|network| network.contains(&address)) {
            Client::Guest
        } else if self.local && (address == own || address.is_loopback()) {
            Client::Host
        } else if self.networks.iter().any(|network| network.contains(&address))
            || self.local && (is_private(address) || self.host.contains(address))
        {
            Client::Served
        } else {
            Client::Stranger
        }
    }
}

/// Whether no packet from this address can come over the Internet: RFC 1918, the shared range of
/// RFC 6598, link-local and unique local.
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

    fn of(access: &Access, address: &str) -> Client {
        access.of(address.parse().expect("an address"), IpAddr::from([198, 51, 100, 9]))
    }

    #[test]
    fn private_addresses_and_the_host_are_local_and_the_internet_is_not() {
        let pods = vec!["203.0.113.0/26".parse().expect("a network")];
        let access =
            Access { host: HostNetworks::fixed(pods), ..Access::new(&[DnsClients::Local], &[]) };
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
            assert_eq!(of(&access, local), Client::Served, "{local}");
        }
        for own in ["127.0.0.1", "127.8.8.8", "::1", "198.51.100.9"] {
            assert_eq!(of(&access, own), Client::Host, "{own}");
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
            assert_eq!(of(&access, foreign), Client::Stranger, "{foreign}");
        }
    }

    #[test]
    fn without_the_word_local_only_listed_networks_are_served() {
        let network = |text: &str| text.parse::<IpNet>().expect("a network");
        let access = Access::new(
            &[DnsClients::Network(network("203.0.113.0/24"))],
            &[network("10.61.0.0/16")],
        );
        assert_eq!(of(&access, "203.0.113.9"), Client::Served);
        assert_eq!(of(&access, "10.61.0.9"), Client::Guest);
        for other in ["127.0.0.1", "10.0.0.1", "198.51.100.9"] {
            assert_eq!(of(&access, other), Client::Stranger, "{other}");
        }
    }
}
