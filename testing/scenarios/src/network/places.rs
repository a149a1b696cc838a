//! The places: namespaces with an actor each, and what connects them to the machine's own network.
//!
//! | place | network |
//! |---|---|
//! | `guest` | a veth pair whose other end is a port of the bridge `br0` |
//! | `tagged` | a veth pair that carries VLAN 7 |
//! | `netkit` | a netkit pair, since 6.7 |
//! | `macvlan` | a macvlan of `uplink0` |
//! | `ipvlan` | an ipvlan of `uplink1` |
//! | `outside` | the machine's own network, in a cgroup that is not attached |
//! | `customer` | the other end of `uplink0` and `uplink1` |

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::process::CommandExt as _,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    actor::{self, Actor},
    customer,
    netlink::{self, Netlink},
};
use crate::{fixture::kernel_version, init};

pub(crate) const GUEST: Actor = Actor::of("guest");
pub(crate) const TAGGED: Actor = Actor::of("tagged");
pub(crate) const NETKIT: Actor = Actor::of("netkit");
pub(crate) const MACVLAN: Actor = Actor::of("macvlan");
pub(crate) const IPVLAN: Actor = Actor::of("ipvlan");
pub(crate) const OUTSIDE: Actor = Actor::of("outside");

/// The machine's interfaces of the guests.
pub(crate) const GUEST_PORT: &str = "vethguest";
pub(crate) const TAGGED_PORT: &str = "vethtagged";
pub(crate) const NETKIT_PRIMARY: &str = "netkit0";
/// Its uplinks.
pub(crate) const UPLINKS: [&str; 2] = ["uplink0", "uplink1"];

/// The stub resolver on the machine's loopback device.
pub(crate) const STUB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
/// The guest's own address.
pub(crate) const GUEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The MTU of the way to the customer, which is less than the guests'.
pub(crate) const PATH_MTU: u32 = 1400;

const VLAN: u16 = 7;

/// The first kernel with netkit.
pub(crate) fn has_netkit() -> bool {
    kernel_version() >= (6, 7)
}

const fn host4(network: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, network, 0, 1))
}

const fn host6(network: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, network, 0, 0, 0, 0, 0, 1))
}

/// Makes every place, and starts its actor.
pub(crate) fn build() -> Result<()> {
    let own = std::process::id();
    fs::create_dir_all("/run").context("failed to make /run")?;
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(format!("/proc/sys/net/{setting}"), "1")
            .with_context(|| format!("failed to set {setting}"))?;
    }
    netlink::skip_address_detection()?;
    Netlink::of(own, |machine| {
        build_customer(machine)?;
        build_guest(machine)?;
        build_tagged(machine)?;
        if has_netkit() {
            build_netkit(machine)?;
        }
        build_child(machine, "macvlan", [10, 88, 0, 20])?;
        build_child(machine, "ipvlan", [10, 89, 0, 21])
    })?;
    start_in("outside", Some(init::JOBS))?;
    customer::resolve(STUB.into())
}

/// Starts the actor of a place, in a network namespace of its own; returns its process.
fn start(place: &str) -> Result<u32> {
    start_in(place, None)
}

/// The same in a cgroup, and `outside` in the machine's own network.
fn start_in(place: &str, cgroup: Option<&str>) -> Result<u32> {
    let mut command = Command::new("/init");
    command.args([actor::ACT, place]);
    if place != "outside" {
        // SAFETY: the closure makes one system call.
        unsafe {
            command.pre_exec(|| {
                Ok(rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET)?)
            });
        }
    }
    let process = command.spawn().with_context(|| format!("failed to start {place}"))?.id();
    if let Some(cgroup) = cgroup {
        fs::write(format!("{cgroup}/cgroup.procs"), process.to_string())
            .with_context(|| format!("failed to move {place} to {cgroup}"))?;
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while !actor::is_ready(place) {
        ensure!(Instant::now() < deadline, "{place} is not ready after 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(process)
}

/// The settings of a place's interface.
struct Inside<'a> {
    name: &'a str,
    addresses: &'a [(IpAddr, u8)],
    gateways: &'a [IpAddr],
    /// The MTU of the way to the gateways, if it is less than the interface's.
    path_mtu: Option<u32>,
}

impl Inside<'_> {
    fn apply(&self, process: u32) -> Result<()> {
        Netlink::of(process, |inside| {
            inside.up("lo")?;
            inside.up(self.name)?;
            for (address, prefix) in self.addresses {
                inside.add_address(self.name, *address, *prefix)?;
            }
            let mut gateways = self.gateways.iter();
            gateways.try_for_each(|gateway| inside.add_default_route(*gateway, self.path_mtu))
        })
        .with_context(|| format!("failed to configure {}", self.name))
    }
}

fn configure(
    process: u32,
    name: &str,
    addresses: &[(IpAddr, u8)],
    gateways: &[IpAddr],
) -> Result<()> {
    Inside { name, addresses, gateways, path_mtu: None }.apply(process)
}

fn build_customer(machine: &Netlink) -> Result<()> {
    let process = start("customer")?;
    for (number, name) in UPLINKS.iter().enumerate() {
        let peer = format!("eth{number}");
        machine.add_veth(name, &peer)?;
        machine.give(&peer, process)?;
        machine.set_mtu(name, PATH_MTU)?;
        machine.up(name)?;
        machine.add_address(name, host4(88 + number as u8), 24)?;
    }
    machine.add_address(UPLINKS[0], host6(0x88), 64)?;
    let addresses: Vec<_> = customer::ADDRESSES
        .iter()
        .map(|address| (*address, if address.is_ipv4() { 24 } else { 64 }))
        .collect();
    let (gateways, path_mtu) = ([host4(88), host6(0x88)], Some(PATH_MTU));
    Inside { name: "eth0", addresses: &addresses, gateways: &gateways, path_mtu }.apply(process)?;
    configure(process, "eth1", &[(customer::RESOLVER_B.into(), 24)], &[])?;
    // Its servers listen once their addresses exist.
    Netlink::of(process, |_| customer::start())
}

fn build_guest(machine: &Netlink) -> Result<()> {
    let process = start("guest")?;
    machine.add_bridge("br0")?;
    machine.up("br0")?;
    machine.add_address("br0", host4(77), 24)?;
    machine.add_address("br0", host6(0x77), 64)?;
    machine.add_veth(GUEST_PORT, "eth0")?;
    machine.give("eth0", process)?;
    machine.join_bridge(GUEST_PORT, "br0")?;
    machine.up(GUEST_PORT)?;
    let address6 = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2).into();
    configure(
        process,
        "eth0",
        &[(GUEST_ADDRESS.into(), 24), (address6, 64)],
        &[host4(77), host6(0x77)],
    )
}

fn build_tagged(machine: &Netlink) -> Result<()> {
    let process = start("tagged")?;
    machine.add_veth(TAGGED_PORT, "eth0")?;
    machine.give("eth0", process)?;
    machine.up(TAGGED_PORT)?;
    machine.add_vlan("tagged7", TAGGED_PORT, VLAN)?;
    machine.up("tagged7")?;
    machine.add_address("tagged7", host4(78), 24)?;
    Netlink::of(process, |inside| {
        inside.up("eth0")?;
        inside.add_vlan("eth0.7", "eth0", VLAN)
    })?;
    configure(process, "eth0.7", &[(Ipv4Addr::new(10, 78, 0, 2).into(), 24)], &[host4(78)])
}

/// Layer 3 only: each side has a route to the other's address.
fn build_netkit(machine: &Netlink) -> Result<()> {
    let address = Ipv4Addr::new(10, 79, 0, 2).into();
    let process = start("netkit")?;
    machine.add_netkit(NETKIT_PRIMARY, "eth0")?;
    machine.give("eth0", process)?;
    machine.up(NETKIT_PRIMARY)?;
    machine.add_address(NETKIT_PRIMARY, host4(79), 32)?;
    machine.add_link_route(NETKIT_PRIMARY, address)?;
    configure(process, "eth0", &[(address, 24)], &[host4(79)])
}

/// A child of an uplink in a place that is named after its kind. The actor is in an attached
/// cgroup: its sockets are seen at the uplink.
fn build_child(machine: &Netlink, kind: &str, address: [u8; 4]) -> Result<()> {
    let process = start_in(kind, Some(init::POD))?;
    if kind == "macvlan" {
        machine.add_macvlan("eth0", UPLINKS[0])?;
    } else {
        machine.add_ipvlan("eth0", UPLINKS[1])?;
    }
    machine.give("eth0", process)?;
    configure(process, "eth0", &[(Ipv4Addr::from(address).into(), 24)], &[])
}
