//! Links, addresses and routes of a network namespace.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, LinkBridge, LinkIpVlan, LinkMacVlan, LinkMessageBuilder, LinkNetkit, LinkUnspec,
    LinkVeth, LinkVlan, RouteMessageBuilder,
    packet_route::{
        link::{IpVlanMode, LinkMessage, MacVlanMode, NetkitMode},
        route::{RouteAttribute, RouteMetric},
        tc::TcAttribute,
    },
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Runtime};

/// The MTU of a new interface.
const ETHERNET_MTU: u32 = 1500;

/// The devices of one network namespace.
pub(crate) struct Netlink {
    runtime: Runtime,
    handle: Handle,
}

impl Netlink {
    /// This process's own network namespace.
    pub(crate) fn open() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let handle = runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            Ok::<_, anyhow::Error>(handle)
        })?;
        Ok(Self { runtime, handle })
    }

    /// Runs `work` in the network namespace of a process.
    pub(crate) fn of<T: Send>(
        process: u32,
        work: impl FnOnce(&Self) -> Result<T> + Send,
    ) -> Result<T> {
        let inside = || {
            let path = format!("/proc/{process}/ns/net");
            let namespace =
                std::fs::File::open(&path).with_context(|| format!("failed to open {path}"))?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("failed to enter {path}"))?;
            work(&Self::open()?)
        };
        std::thread::scope(|scope| {
            let joined = scope.spawn(inside).join();
            joined.map_err(|_| anyhow::anyhow!("a thread in a namespace panicked"))?
        })
    }

    fn add(&self, what: &str, link: LinkMessage) -> Result<()> {
        self.runtime
            .block_on(self.handle.link().add(link).execute())
            .with_context(|| format!("failed to add {what}"))
    }

    fn set(&self, name: &str, change: LinkMessageBuilder<LinkUnspec>) -> Result<()> {
        let change = change.index(index(name)?).build();
        self.runtime
            .block_on(self.handle.link().set(change).execute())
            .with_context(|| format!("failed to change {name}"))
    }

    pub(crate) fn add_veth(&self, name: &str, peer: &str) -> Result<()> {
        self.add(name, LinkVeth::new(name, peer).build())
    }

    pub(crate) fn add_bridge(&self, name: &str) -> Result<()> {
        self.add(name, LinkBridge::new(name).build())
    }

    pub(crate) fn add_vlan(&self, name: &str, parent: &str, id: u16) -> Result<()> {
        self.add(name, LinkVlan::new(name, index(parent)?, id).build())
    }

    pub(crate) fn add_macvlan(&self, name: &str, parent: &str) -> Result<()> {
        self.add(name, LinkMacVlan::new(name, index(parent)?, MacVlanMode::Bridge).build())
    }

    pub(crate) fn add_ipvlan(&self, name: &str, parent: &str) -> Result<()> {
        self.add(name, LinkIpVlan::new(name, index(parent)?, IpVlanMode::L2).build())
    }

    pub(crate) fn add_netkit(&self, name: &str, peer: &str) -> Result<()> {
        self.add(name, LinkNetkit::new(name, peer, NetkitMode::L3).build())
    }

    /// Brings a link up.
    pub(crate) fn up(&self, name: &str) -> Result<()> {
        self.set(name, LinkMessageBuilder::default().up())
    }

    pub(crate) fn set_mtu(&self, name: &str, mtu: u32) -> Result<()> {
        self.set(name, LinkMessageBuilder::default().mtu(mtu))
    }

    /// Makes a link a port of a bridge.
    pub(crate) fn join_bridge(&self, name: &str, bridge: &str) -> Result<()> {
        self.set(name, LinkMessageBuilder::default().controller(index(bridge)?))
    }

    /// Gives a link to the namespace of a process.
    pub(crate) fn give(&self, name: &str, process: u32) -> Result<()> {
        self.set(name, LinkMessageBuilder::default().setns_by_pid(process))
    }

    /// The indices of the interfaces that have a clsact qdisc.
    pub(crate) fn clsact_qdiscs(&self) -> Result<Vec<i32>> {
        let list = self.handle.qdisc().get().execute().try_collect::<Vec<_>>();
        let qdiscs = self.runtime.block_on(list).context("failed to list the qdiscs")?;
        let is_clsact = |attribute: &TcAttribute| *attribute == TcAttribute::Kind("clsact".into());
        let found = qdiscs.iter().filter(|qdisc| qdisc.attributes.iter().any(is_clsact));
        Ok(found.map(|qdisc| qdisc.header.index).collect())
    }

    pub(crate) fn add_address(&self, name: &str, address: IpAddr, prefix: u8) -> Result<()> {
        self.runtime
            .block_on(self.handle.address().add(index(name)?, address, prefix).execute())
            .with_context(|| format!("failed to give {address} to {name}"))
    }

    /// The default route of the gateway's family. With `mtu`, the path of its packets is narrower
    /// than its interface, which its peers do not know.
    pub(crate) fn add_default_route(&self, gateway: IpAddr, mtu: Option<u32>) -> Result<()> {
        const HEADERS4: u32 = 40;
        const HEADERS6: u32 = 60;
        let (everywhere, headers) = match gateway {
            IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), HEADERS4),
            IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), HEADERS6),
        };
        let mut route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(everywhere, 0)?
            .gateway(gateway)?
            .build();
        if let Some(mtu) = mtu {
            let metrics = vec![RouteMetric::Mtu(mtu), RouteMetric::Advmss(ETHERNET_MTU - headers)];
            route.attributes.push(RouteAttribute::Metrics(metrics));
        }
        self.runtime
            .block_on(self.handle.route().add(route).execute())
            .with_context(|| format!("failed to add a route by {gateway}"))
    }

    /// A route to one address on a link without neighbours.
    pub(crate) fn add_link_route(&self, name: &str, address: IpAddr) -> Result<()> {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(address, prefix)?
            .output_interface(index(name)?)
            .build();
        self.runtime
            .block_on(self.handle.route().add(route).execute())
            .with_context(|| format!("failed to add a route to {address}"))
    }
}

/// Makes IPv6 addresses of this namespace's later interfaces usable at once.
pub(super) fn skip_address_detection() -> Result<()> {
    for scope in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad");
        std::fs::write(&path, "0").with_context(|| format!("failed to write {path}"))?;
    }
    Ok(())
}

/// The index of a link in this thread's namespace.
pub(crate) fn index(name: &str) -> Result<u32> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    rustix::net::netdevice::name_to_index(&socket, name)
        .with_context(|| format!("there is no link {name}"))
}
