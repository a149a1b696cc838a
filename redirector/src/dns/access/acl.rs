//! The access list: this host's executors and the networks in the configuration are answered,
//! others are refused: neighbours learn nothing, and nobody can use the shim to attack a third
//! party.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{config::DnsClients, host::ExecutorClients};

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
    executor_clients: ExecutorClients,
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
            executor_clients: ExecutorClients::open(),
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
            || self.allows_local && self.executor_clients.contains(address)
        {
            ClientClass::Allowed
        } else {
            ClientClass::Denied
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
    fn executors_and_the_host_are_local_and_neighbours_are_not() {
        let executors = ["10.61.0.7", "fd00:7::1", "203.0.113.9"];
        let known = executors.map(|client| client.parse().expect("an address"));
        let acl = Acl {
            executor_clients: ExecutorClients::fixed(known),
            ..Acl::new(&[DnsClients::Local], &[])
        };
        for executor in executors {
            assert_eq!(classify(&acl, executor), ClientClass::Allowed, "{executor}");
        }
        for own in ["127.0.0.1", "127.8.8.8", "::1", "198.51.100.9"] {
            assert_eq!(classify(&acl, own), ClientClass::Host, "{own}");
        }
        for stranger in [
            "10.61.1.7",
            "172.17.0.2",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.20.53",
            "fe80::1",
            "fd00::1",
            "8.8.8.8",
            "203.0.113.64",
            "2001:db8::1",
            "::",
        ] {
            assert_eq!(classify(&acl, stranger), ClientClass::Denied, "{stranger}");
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
