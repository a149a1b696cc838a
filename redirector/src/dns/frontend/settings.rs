//! The settings of the shim.

use std::{net::SocketAddr, path::Path};

use ipnet::IpNet;

use super::bind_error::BindError;
use crate::{
    config::{self, DnsClients, Upstream},
    dns::{access::Acl, forward::Upstreams},
    net::Nameservers,
};

/// The settings of the shim.
#[derive(Clone, Debug)]
pub struct ShimSettings {
    /// The addresses that it answers on, over UDP and TCP. Port 0 selects a free port.
    pub listen: Vec<SocketAddr>,
    /// The servers that other names are forwarded to.
    pub upstreams: Vec<Upstream>,
    /// The clients that are answered; all others are refused.
    pub clients: Vec<DnsClients>,
    /// The clients that get real addresses. They need not be in `clients`.
    pub real_address_clients: Vec<IpNet>,
    /// Time to live of our records, in seconds.
    pub ttl: u32,
}

impl From<&config::Dns> for ShimSettings {
    fn from(dns: &config::Dns) -> Self {
        let config::Dns { listen, upstreams, clients, real_address_clients, ttl, .. } = dns.clone();
        Self { listen, upstreams, clients, real_address_clients, ttl }
    }
}

impl ShimSettings {
    pub(super) fn acl(&self) -> Acl {
        Acl::new(&self.clients, &self.real_address_clients)
    }

    /// The servers to forward to: at least one, and none of `own`.
    pub(super) fn open_upstreams(
        &self,
        own: &[SocketAddr],
        resolv_conf: &Path,
    ) -> Result<Upstreams, BindError> {
        let own_server = |upstream: &Upstream| match upstream {
            Upstream::Server(server) if own.contains(server) => Some(*server),
            _ => None,
        };
        if let Some(server) = self.upstreams.iter().find_map(own_server) {
            return Err(BindError::Loop(server));
        }
        let nameservers =
            Nameservers::with_resolv_conf(self.upstreams.clone(), own.to_vec(), resolv_conf);
        if nameservers.current().is_empty() {
            return Err(BindError::NoUpstream(nameservers.problem().unwrap_or_default()));
        }
        Ok(Upstreams::new(nameservers))
    }
}
