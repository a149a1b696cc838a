//! Intercepted DNS: further ports of the shim, one for each resolver that executors ask. What is
//! not ours goes to that very resolver, since pods of one node may have different ones.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use socket2::{Domain, Socket, Type};

use super::listener::{BindError, Listener};
use crate::{
    dns::forward::{Candidates, Upstream, UpstreamHealth},
    net::socket_mark,
};

/// The first port that is tried. It and those that follow are below the ports that the kernel gives
/// out by itself, and nobody's by custom.
const FIRST: u16 = 5310;
/// When one of them is taken, all move on together, so often at most.
const MOVES: u16 = 16;
/// The port of a resolver: no other is intercepted.
const DNS_PORT: u16 = 53;

/// Where intercepted DNS arrives: of each family the address, and the first of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPorts {
    /// IPv4, if the shim has such an address.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6, if the shim has such an address.
    pub ipv6: Option<Ipv6Addr>,
    /// The port of slot 0, on both.
    pub first_port: u16,
}

impl SlotPorts {
    /// On the first address of each family.
    fn new(listen: &[SocketAddr], first_port: u16) -> Self {
        let ipv4 = listen.iter().find_map(|address| match address.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        let ipv6 = listen.iter().find_map(|address| match address.ip() {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        });
        Self { ipv4, ipv6, first_port }
    }

    /// Opens `count` ports on each address, or none.
    fn open(&self, count: u16) -> Result<Vec<Vec<Listener>>, BindError> {
        let addresses = [self.ipv4.map(IpAddr::from), self.ipv6.map(IpAddr::from)];
        let slots = |ip: IpAddr| {
            (0..count)
                .map(|slot| {
                    Listener::of_slot(SocketAddr::new(ip, self.first_port + slot), slot.into())
                })
                .collect()
        };
        addresses.into_iter().flatten().map(slots).collect()
    }
}

/// Opens `count` ports that follow each other, on the first address of each family; a list of
/// listeners for each.
pub(crate) fn open(
    listen: &[SocketAddr],
    count: u16,
) -> Result<(SlotPorts, Vec<Vec<Listener>>), BindError> {
    Socket::new(Domain::IPV4, Type::DGRAM, None)
        .and_then(|socket| socket_mark::mark(&socket))
        .map_err(BindError::Unmarked)?;
    let mut tries = (0..MOVES).map(|step| SlotPorts::new(listen, FIRST + step * count));
    loop {
        let ports = tries.next().unwrap_or_else(|| SlotPorts::new(listen, FIRST));
        match ports.open(count) {
            Ok(listeners) => return Ok((ports, listeners)),
            Err(BindError::InUse { .. }) if tries.len() > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

/// Tells which resolver a slot stands for.
pub type ResolverOfSlot = dyn Fn(u32) -> Option<IpAddr> + Send + Sync;

/// The resolvers that executors asked.
pub(crate) struct Asked {
    resolver_of: Box<ResolverOfSlot>,
    /// Our own addresses, to which nothing is passed on.
    own: Vec<SocketAddr>,
    started: Instant,
    known: Mutex<Vec<Option<Arc<Upstream>>>>,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("own", &self.own)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl Asked {
    pub(crate) fn new(resolver_of: Box<ResolverOfSlot>, own: Vec<SocketAddr>) -> Self {
        Self { resolver_of, own, started: Instant::now(), known: Mutex::default() }
    }

    /// The resolver that was asked by way of `slot`, and no other. Nothing when the slot has none
    /// any more, or that is one of our addresses.
    pub(crate) fn candidates(&self, slot: u32) -> Option<Candidates> {
        let address = SocketAddr::new((self.resolver_of)(slot)?, DNS_PORT);
        if self.own.contains(&address) {
            return None;
        }
        let place = usize::try_from(slot).ok()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() <= place {
            known.resize(place + 1, None);
        }
        let upstream = known[place].take().filter(|upstream| upstream.address == address);
        let upstream =
            upstream.unwrap_or_else(|| Arc::new(Upstream::asked_for(address, self.started)));
        known[place] = Some(Arc::clone(&upstream));
        Some(Candidates { first: vec![upstream], then: Vec::new() })
    }

    /// How those are doing that were asked.
    pub(crate) fn health(&self) -> Vec<UpstreamHealth> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().flatten().map(|upstream| upstream.health()).collect()
    }
}
