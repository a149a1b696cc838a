//! DNS interception at sockets, from the agent's side: where the shim listens, the listed resolver
//! of each slot, and counters. The programs only read these maps, but for the counters.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
};

use aya::maps::{Array, MapData};
use redirector_common::{
    addr::{Ip4Be, Ip6Be},
    dns::{self, SLOTS, Shim},
    names,
};
use serde::{Deserialize, Serialize};

use crate::datapath::{
    address,
    error::DatapathError,
    load::object::Object,
    maps::arrays::{read, write},
    pins::layout::{self, Pins},
};

/// The most resolvers that can be intercepted at sockets.
pub const MAX_RESOLVERS: usize = SLOTS as usize;

/// Where the shim listens for intercepted DNS: an address of each family, and the port of slot 0.
/// The other slots have the ports after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShimEndpoint {
    /// Its IPv4 address; without it queries to IPv4 resolvers are not intercepted.
    pub ipv4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// The port of slot 0.
    pub first_port: u16,
}

/// A resolver whose queries are intercepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterceptedResolver {
    /// Its address.
    pub address: IpAddr,
    /// Intercepted connects, and intercepted datagrams of unconnected sockets.
    pub intercepted: u64,
}

/// Interception at sockets, with its counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterceptionStatus {
    /// Whether anything is intercepted while the agent runs.
    pub on: bool,
    /// The listed resolvers.
    pub resolvers: Vec<InterceptedResolver>,
    /// Connects and datagrams that were not intercepted since the heartbeat was too old.
    pub heartbeat_stale: u64,
}

/// The maps of interception.
pub(crate) struct Resolvers {
    shim: Array<MapData, Shim>,
    state: Shim,
    /// What the map has.
    written: Shim,
    resolvers: Array<MapData, Ip6Be>,
    stats: Array<MapData, u64>,
}

impl Resolvers {
    /// Takes the maps out of a loaded object. Their contents stay until [`Resolvers::list`].
    pub(crate) fn open(object: &mut Object) -> Result<Self, DatapathError> {
        let shim = object.array(names::SHIM)?;
        let written: Shim = read(&shim, names::SHIM, 0)?;
        let state = Shim { host_netns: netns_cookie(), ..written };
        let (resolvers, stats) = (object.array(names::RESOLVERS)?, object.array(names::DNS_STATS)?);
        Ok(Self { shim, state, written, resolvers, stats })
    }

    /// Gives each resolver a slot: the one that it had before, if it had one, since sockets may be
    /// connected to its port. A change ends the interception. Returns the resolver of each slot.
    pub(crate) fn list(
        &mut self,
        listed: &[IpAddr],
    ) -> Result<[Option<IpAddr>; MAX_RESOLVERS], DatapathError> {
        let mut slots = slots(&self.resolvers)?;
        let before = slots;
        for slot in &mut slots {
            *slot = slot.filter(|address| listed.contains(address));
        }
        for address in listed {
            if slots.contains(&Some(*address)) {
                continue;
            }
            let Some(free) = slots.iter_mut().find(|slot| slot.is_none()) else {
                return Err(DatapathError::Full {
                    what: "DNS slots",
                    remedy: "list fewer resolvers in `dns.intercept_resolvers`",
                });
            };
            *free = Some(*address);
        }
        if slots != before {
            self.set_enabled(false)?;
        }
        for (slot, (resolver, before)) in (0..).zip(slots.iter().zip(before)) {
            if *resolver != before {
                let address = resolver.map(address::ip).unwrap_or_default();
                write(&mut self.resolvers, names::RESOLVERS, slot, address)?;
                write(&mut self.stats, names::DNS_STATS, slot, 0)?;
            }
        }
        Ok(slots)
    }

    /// Sets where the shim listens. A change ends the interception: the programs do not read the
    /// address and the port in one access.
    pub(crate) fn set_shim(&mut self, at: &ShimEndpoint) -> Result<(), DatapathError> {
        let ip4 = at.ipv4.map_or_else(Ip4Be::default, |ip| Ip4Be::from_octets(ip.octets()));
        let ip6 = at.ipv6.map_or_else(Ip6Be::default, address::ip6);
        let next = Shim { ip4, ip6, first_port: at.first_port.into(), ..self.state };
        if next == self.written {
            return Ok(());
        }
        self.set_enabled(false)?;
        self.state = Shim { enabled: 0, ..next };
        self.write()
    }

    pub(crate) fn set_enabled(&mut self, enabled: bool) -> Result<(), DatapathError> {
        self.state.enabled = enabled.into();
        self.write()
    }

    fn write(&mut self) -> Result<(), DatapathError> {
        write(&mut self.shim, names::SHIM, 0, self.state)?;
        self.written = self.state;
        Ok(())
    }

    pub(crate) fn status(&self) -> Result<InterceptionStatus, DatapathError> {
        read_status(&self.state, &self.resolvers, &self.stats)
    }
}

/// The status from the pinned maps, without an agent.
pub(crate) fn read_pinned(pins: &Pins) -> Result<InterceptionStatus, DatapathError> {
    let shim: Array<MapData, Shim> = layout::open_pin(pins, names::SHIM)?;
    read_status(
        &read(&shim, names::SHIM, 0)?,
        &layout::open_pin(pins, names::RESOLVERS)?,
        &layout::open_pin(pins, names::DNS_STATS)?,
    )
}

fn read_status(
    shim: &Shim,
    resolvers: &Array<MapData, Ip6Be>,
    stats: &Array<MapData, u64>,
) -> Result<InterceptionStatus, DatapathError> {
    let count = |counter| read(stats, names::DNS_STATS, counter);
    let mut status = InterceptionStatus {
        on: shim.enabled != 0,
        resolvers: Vec::new(),
        heartbeat_stale: count(dns::AGENT_STALE)?,
    };
    for (slot, resolver) in (0..).zip(slots(resolvers)?) {
        if let Some(address) = resolver {
            status.resolvers.push(InterceptedResolver { address, intercepted: count(slot)? });
        }
    }
    Ok(status)
}

/// The resolver of each slot.
fn slots(
    resolvers: &Array<MapData, Ip6Be>,
) -> Result<[Option<IpAddr>; MAX_RESOLVERS], DatapathError> {
    let mut slots = [None; MAX_RESOLVERS];
    for (slot, resolver) in (0..).zip(&mut slots) {
        let address = read(resolvers, names::RESOLVERS, slot)?;
        *resolver = (!address.is_unspecified()).then(|| address::from_ip(address));
    }
    Ok(slots)
}

/// The cookie of this thread's network namespace; 0, which means the initial one, if the kernel has
/// none (before 5.14).
fn netns_cookie() -> u64 {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let cookie = || -> io::Result<u64> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
        // SAFETY: the kernel writes at most `length` bytes into the cookie.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
    };
    cookie().unwrap_or(0)
}
