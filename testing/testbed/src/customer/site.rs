//! The customer's site: public load balancers, the registry behind them, and the DNS server of the
//! public name.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::abrupt_server::{AbruptServer, Ending};
use super::banner_server::BannerServer;
use super::certificates::Certificates;
use super::dns_server::DnsServer;
use super::echo_server::EchoServer;
use super::load_balancer::LoadBalancer;
use super::registry::Registry;
use super::resolver::Resolver;
use crate::isolation::mounts::{ResolvConf, View};
use crate::isolation::namespaces::Namespaces;
use crate::isolation::network;
use crate::isolation::sandbox::Sandbox;
use crate::isolation::scope::RigScope;
use crate::topology::{
    DNS_ADDRESS, INTERNAL_NAME, LOAD_BALANCERS, NODE_ADDRESS, REGISTRY_ADDRESS, RESOLVER_ADDRESS,
};
use crate::{packages, process};

/// The customer's end of the link, once the node has made it.
const LINK: &str = "link set lo up\n\
    addr add 10.20.0.10/32 dev lo\n\
    addr add 203.0.113.1/24 dev public\n\
    addr add 203.0.113.7/24 dev public\n\
    addr add 203.0.113.8/24 dev public\n\
    addr add 203.0.113.53/24 dev public\n\
    addr add 203.0.113.54/24 dev public\n\
    link set public up\n\
    route add 198.51.100.0/24 dev public\n";

/// Counts packets for the pool that left the node, and drops packets to silent addresses.
const RULES: &str = "table ip rig {\n\
    counter leaked { }\n\
    set silent { type ipv4_addr; }\n\
    set refusing { type ipv4_addr; }\n\
    set unreachable { type ipv4_addr; }\n\
    set lossy { type ipv4_addr; }\n\
    chain prerouting {\n\
      type filter hook prerouting priority raw; policy accept;\n\
      ip daddr 198.18.0.0/15 counter name leaked\n\
      ip daddr @silent drop\n\
      ip daddr @lossy numgen random mod 100 < 20 drop\n\
    }\n\
    chain input {\n\
      type filter hook input priority filter; policy accept;\n\
      iif lo accept\n\
      ip daddr @refusing meta l4proto tcp reject with tcp reset\n\
      ip daddr @refusing reject\n\
      ip daddr @unreachable reject with icmp type host-unreachable\n\
    }\n\
    }\n";

/// What happens to packets for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Obstacle {
    /// They are dropped.
    Silent,
    /// They are answered with a reset, or with an ICMP error "port unreachable".
    Refusing,
    /// They are answered with an ICMP error "host unreachable".
    Unreachable,
    /// One in five is dropped.
    Lossy,
}

impl Obstacle {
    fn set(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Refusing => "refusing",
            Self::Unreachable => "unreachable",
            Self::Lossy => "lossy",
        }
    }
}

/// The customer's namespace and certificates.
#[derive(Debug)]
pub struct Customer {
    sandbox: Sandbox,
    certificates: Certificates,
}

impl Customer {
    pub(crate) fn new(scope: &Arc<RigScope>) -> Result<Self> {
        let (stage, folder) = (scope.folder("stage-customer")?, scope.folder("certificates")?);
        let namespaces = Namespaces::create(|| {
            View::new(&stage, &ResolvConf::of(DNS_ADDRESS))?;
            network::nft(RULES)
        })
        .context("failed to make the customer's site")?;
        let sandbox = Sandbox::new(scope, Arc::new(namespaces), Path::new("customer"), "customer")?;
        Ok(Self { sandbox, certificates: Certificates::create(&folder, &[INTERNAL_NAME])? })
    }

    /// Gives the customer's end of the link, which the node has made, its addresses.
    pub(crate) fn connect_link(&self) -> Result<()> {
        self.sandbox.namespaces().run(|| network::ip(LINK))?
    }

    /// The sandbox of its servers.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The certificate of its own authority, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.certificates.ca_pem
    }

    /// The same as a file, at the same path in every sandbox.
    pub fn ca_path(&self) -> &Path {
        &self.certificates.ca_path
    }

    /// Starts the authoritative DNS server: the public name with both load balancers.
    pub fn dns_server(&self) -> Result<DnsServer> {
        DnsServer::start(&self.sandbox, &LOAD_BALANCERS)
    }

    /// Starts a resolver that knows none of the mapped names.
    pub fn resolver(&self) -> Result<Resolver> {
        self.resolver_at(RESOLVER_ADDRESS)
    }

    /// The same at another address of the customer's.
    pub fn resolver_at(&self, address: Ipv4Addr) -> Result<Resolver> {
        Resolver::start(self.sandbox.namespaces(), address)
    }

    /// Starts the registry, for container images and Python packages, behind TLS.
    pub fn registry(&self) -> Result<Registry> {
        Registry::start(&self.sandbox, &self.certificates)
    }

    /// Starts load balancer 1 or 2: port 443 leads to the registry, ports 80 and 8080 to a web
    /// server that answers `lb1` or `lb2`.
    pub fn load_balancer(&self, number: usize) -> Result<LoadBalancer> {
        LoadBalancer::start(&self.sandbox, number)
    }

    /// A server at `address` that ends its connections like this.
    pub fn abrupt_server(&self, address: SocketAddr, ending: Ending) -> Result<AbruptServer> {
        AbruptServer::start(self.sandbox.namespaces(), address, ending)
    }

    /// Starts a server at an address of the customer's that answers each connection with `banner`
    /// and closes it.
    pub fn banner_server(&self, address: SocketAddr, banner: &str) -> Result<BannerServer> {
        BannerServer::start(self.sandbox.namespaces(), address, banner)
    }

    /// Starts a server in the registry's place, behind port 443 of the load balancers, that sends
    /// back what it receives.
    pub fn echo_server(&self) -> Result<EchoServer> {
        let address = REGISTRY_ADDRESS.parse().context("failed to parse an address")?;
        EchoServer::start(self.sandbox.namespaces(), SocketAddr::new(address, 443))
    }

    /// Drops every packet to `address`, so that connects to it time out.
    pub fn silence(&self, address: Ipv4Addr) -> Result<()> {
        self.nft(&format!("add element ip rig silent {{ {address} }}"))
    }

    /// Undoes [`Customer::silence`].
    pub fn unsilence(&self, address: Ipv4Addr) -> Result<()> {
        self.nft(&format!("delete element ip rig silent {{ {address} }}"))
    }

    /// Puts an obstacle before `address`, for everybody outside the customer's site.
    pub fn obstruct(&self, address: Ipv4Addr, obstacle: Obstacle) -> Result<()> {
        self.nft(&format!("add element ip rig {} {{ {address} }}", obstacle.set()))
    }

    /// Undoes [`Customer::obstruct`].
    pub fn clear(&self, address: Ipv4Addr, obstacle: Obstacle) -> Result<()> {
        self.nft(&format!("delete element ip rig {} {{ {address} }}", obstacle.set()))
    }

    /// The number of packets to 198.18.0.0/15 that have left the node, which must be 0.
    pub fn leaked_packets(&self) -> Result<u64> {
        let mut list = self.sandbox.command(packages::path_of("nft")?);
        list.args(["-j", "list", "counter", "ip", "rig", "leaked"]);
        let listed = process::finish(list, Duration::from_secs(10))?
            .success()
            .context("failed to read the counter of leaked packets")?;
        let parsed: serde_json::Value =
            serde_json::from_str(&listed.stdout).context("failed to parse nft's JSON")?;
        let counters = parsed["nftables"].as_array().into_iter().flatten();
        counters
            .filter_map(|entry| entry["counter"]["packets"].as_u64())
            .next()
            .context("nft listed no counter")
    }

    /// The source address that the load balancers see.
    pub fn admitted_address() -> &'static str {
        NODE_ADDRESS
    }

    fn nft(&self, script: &str) -> Result<()> {
        self.sandbox.namespaces().run(|| network::nft(script))?
    }
}
