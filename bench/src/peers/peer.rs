//! What every peer does: hold routes from virtual addresses or names to backends, and change them.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Result, bail};
use testbed::Sandbox;

/// The backends: two addresses of one server.
pub(crate) const BACKENDS: [Ipv4Addr; 2] =
    [Ipv4Addr::new(192, 0, 2, 7), Ipv4Addr::new(192, 0, 2, 8)];

/// The first virtual address; route `n` has the `n`th after it.
pub(crate) const FIRST_VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// The delay of systemd before it starts a service again (`RestartSec`).
pub(crate) const RESTART_DELAY: Duration = Duration::from_millis(100);

/// Routes that have the same backends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Routes {
    pub(crate) count: u32,
    pub(crate) backends: &'static [Ipv4Addr],
}

impl Routes {
    /// So many routes to the first backend.
    pub(crate) const fn single(count: u32) -> Self {
        Self { count, backends: BACKENDS.split_at(1).0 }
    }

    /// One route to both backends.
    pub(crate) const BALANCED: Self = Self { count: 1, backends: &BACKENDS };
}

/// The virtual address of a route.
pub(crate) fn vip(number: u32) -> Ipv4Addr {
    (FIRST_VIP.to_bits() + number).into()
}

/// One way for a client to reach the load balancer.
pub(crate) trait Peer {
    /// As in the tables.
    fn label(&self) -> &'static str;

    /// Where its clients run.
    fn sandbox(&self) -> &Sandbox;

    /// Whether it has routes: otherwise it is a limit to compare with.
    fn has_routes(&self) -> bool {
        true
    }

    /// Whether a route can have several backends; otherwise its first one is used.
    fn balances(&self) -> bool {
        self.has_routes()
    }

    /// Replaces all routes, and returns when they apply.
    fn load(&mut self, routes: Routes) -> Result<()>;

    /// Where clients of a route connect to; of a DNS-only peer, the backend.
    fn target(&self, number: u32) -> Result<SocketAddrV4> {
        let first = self.first_target();
        Ok(SocketAddrV4::new((first.ip().to_bits() + number).into(), first.port()))
    }

    /// The number of addresses that have a route, from [`Peer::first_target`] on.
    fn spread(&self) -> u32;

    /// The lowest address that has a route.
    fn first_target(&self) -> SocketAddrV4;

    /// The server that answers for the names of routes, if it has one.
    fn resolver(&self) -> Option<SocketAddrV4> {
        None
    }

    /// Whether its clients must look the name up before each connect.
    fn is_dns_only(&self) -> bool {
        false
    }

    /// Finds out what a change of a route needs to know, which its operator keeps.
    fn prepare_change(&mut self, _number: u32) -> Result<()> {
        Ok(())
    }

    /// Leads a route to another backend, as the peer's documentation describes. The change may
    /// apply after the return.
    fn change(&mut self, _number: u32, _backend: Ipv4Addr) -> Result<()> {
        bail!("{} has no routes", self.label())
    }

    /// Upgrades it without losses, as its documentation advises; rules of the kernel are replaced.
    fn upgrade(&mut self) -> Result<()> {
        self.load(Routes::single(1))
    }

    /// Kills its processes, and starts them again as a service manager does: after
    /// [`RESTART_DELAY`].
    fn crash(&mut self) -> Result<()> {
        bail!("{} has no process", self.label())
    }

    /// The processes that it consists of.
    fn pids(&self) -> Vec<u32> {
        Vec::new()
    }

    /// The memory of its eBPF maps.
    fn map_bytes(&self) -> Result<u64> {
        Ok(0)
    }
}
