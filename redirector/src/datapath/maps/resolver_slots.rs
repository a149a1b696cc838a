//! DNS interception from the agent's side: its scope, the slot of each resolver, and counters.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::maps::{Array, HashMap, MapData, MapError};
use parking_lot::RwLock;
use redirector_common::{
    addr::{Ip4Be, Ip6Be},
    decide::{Claim, SlotState, SlotTable, find_slot},
    dns::{self, Resolver, SLOTS, Shim},
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

/// The number of ports that the shim needs for intercepted DNS: one for each resolver in use.
pub const DNS_SLOTS: u16 = SLOTS as u16;

/// A resolver without queries for this long loses its slot if fewer than [`MIN_FREE`] are free. No
/// client waits that long for a reply.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// With fewer free slots than this, idle resolvers lose theirs.
const MIN_FREE: usize = SLOTS as usize / 4;

type ResolverMap = HashMap<MapData, u32, Resolver>;

/// Where the shim listens for intercepted DNS: an address of each family, and the port of slot 0.
/// The other slots have the ports after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShimEndpoint {
    /// Its IPv4 address; without it queries to IPv4 resolvers are not intercepted.
    pub ipv4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// The port of slot 0, the first of [`SLOTS`] ports.
    pub first_port: u16,
}

/// Which queries are intercepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InterceptScope {
    /// Nothing.
    #[default]
    Nothing,
    /// Queries to these resolvers.
    Listed(Vec<IpAddr>),
    /// Queries to every resolver.
    Everything,
}

/// A resolver that has a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterceptedResolver {
    /// Its address.
    pub address: IpAddr,
    /// Whether the configuration names it.
    pub listed: bool,
    /// Intercepted connects, and intercepted datagrams of unconnected sockets.
    pub intercepted: u64,
}

/// Interception, with its counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterceptionStatus {
    /// Whether anything is intercepted while the agent runs.
    pub on: bool,
    /// Whether only queries to listed resolvers are.
    pub listed_only: bool,
    /// The resolvers that have a slot.
    pub resolvers: Vec<InterceptedResolver>,
    /// Connects and datagrams that were not intercepted since the heartbeat was too old.
    pub heartbeat_stale: u64,
    /// Connects and datagrams that were not intercepted since all slots were in use.
    pub slots_full: u64,
    /// Those that were intercepted for resolvers that have lost their slot since.
    pub released: u64,
}

/// The maps of interception.
pub(crate) struct ResolverSlots {
    shim: Array<MapData, Shim>,
    state: Shim,
    resolvers: Arc<RwLock<ResolverMap>>,
    stats: Array<MapData, u64>,
    /// The count of each slot, and when it last changed.
    last_change: BTreeMap<u32, (u64, Instant)>,
    /// The sum of the counters of freed slots.
    released: u64,
}

/// Finds the resolver of a slot.
#[derive(Clone)]
pub struct ResolverLookup(Arc<RwLock<ResolverMap>>);

impl ResolverLookup {
    /// The resolver of `slot`; `None` for a free slot.
    pub fn resolver(&self, slot: u32) -> Option<IpAddr> {
        let map = self.0.read();
        map.get(&slot, 0).ok().map(|resolver| address::from_ip(resolver.address))
    }
}

impl ResolverSlots {
    /// Takes the maps out of a loaded object. Their contents stay until
    /// [`ResolverSlots::set_shim`].
    pub(crate) fn open(object: &mut Object) -> Result<Self, DatapathError> {
        let shim = object.array(names::SHIM)?;
        let state = Shim { host_netns: netns_cookie(), ..read(&shim, names::SHIM, 0)? };
        let resolvers = Arc::new(RwLock::new(object.hash(names::RESOLVERS)?));
        Ok(Self {
            shim,
            state,
            resolvers,
            stats: object.array(names::DNS_STATS)?,
            last_change: BTreeMap::new(),
            released: 0,
        })
    }

    /// Sets where the shim listens. Interception is switched off first, since the programs do not
    /// read the address and the port in one access.
    pub(crate) fn set_shim(&mut self, at: &ShimEndpoint) -> Result<(), DatapathError> {
        self.set_mode(Shim::OFF)?;
        let ip4 = at.ipv4.map_or_else(Ip4Be::default, |ip| Ip4Be::from_octets(ip.octets()));
        let ip6 = at.ipv6.map_or_else(Ip6Be::default, address::ip6);
        self.state = Shim { ip4, ip6, first_port: at.first_port.into(), ..self.state };
        write(&mut self.shim, names::SHIM, 0, self.state)
    }

    pub(crate) fn intercept(&mut self, scope: &InterceptScope) -> Result<(), DatapathError> {
        let listed: &[IpAddr] = match scope {
            InterceptScope::Listed(listed) => listed,
            _ => &[],
        };
        self.mark_listed(listed)?;
        self.set_mode(match scope {
            InterceptScope::Nothing => Shim::OFF,
            InterceptScope::Listed(_) => Shim::LISTED,
            InterceptScope::Everything => Shim::ALL,
        })
    }

    fn set_mode(&mut self, mode: u32) -> Result<(), DatapathError> {
        self.state.mode = mode;
        write(&mut self.shim, names::SHIM, 0, self.state)
    }

    /// Marks exactly these resolvers as listed; those without a slot get one, if one is free.
    fn mark_listed(&self, listed: &[IpAddr]) -> Result<(), DatapathError> {
        let mut map = self.resolvers.write();
        for &address in listed {
            if find_slot(
                &SlotClaims(RefCell::new(&mut map)),
                address::ip(address),
                Claim::IfFree as u32,
            ) == SLOTS
            {
                return Err(DatapathError::Full {
                    what: "DNS slots",
                    remedy: "list fewer resolvers in `dns.intercept`",
                });
            }
        }
        for slot in 0..SLOTS {
            let Some(found) = look_up(&map, slot)? else { continue };
            let wanted = u32::from(listed.contains(&address::from_ip(found.address)));
            if found.listed != wanted {
                insert(&mut map, slot, Resolver { listed: wanted, ..found }, EXIST)?;
            }
        }
        Ok(())
    }

    pub(crate) fn resolver_lookup(&self) -> ResolverLookup {
        ResolverLookup(Arc::clone(&self.resolvers))
    }

    pub(crate) fn release_idle(&mut self) -> Result<(), DatapathError> {
        let mut map = self.resolvers.write();
        let mut in_use = Vec::new();
        for (slot, resolver) in occupied(&map)? {
            in_use.push((slot, resolver, read(&self.stats, names::DNS_STATS, slot)?));
        }
        self.last_change.retain(|slot, _| in_use.iter().any(|(known, ..)| known == slot));
        let now = Instant::now();
        let few_free = SLOTS as usize - in_use.len() < MIN_FREE;
        for (slot, resolver, count) in in_use {
            let last_change = self.last_change.entry(slot).or_insert((count, now));
            if last_change.0 != count {
                *last_change = (count, now);
            } else if few_free
                && resolver.listed == 0
                && now.duration_since(last_change.1) >= IDLE_TIMEOUT
            {
                let removed = map.remove(&slot);
                removed.map_err(|error| {
                    DatapathError::call(format!("remove {}[{slot}]", names::RESOLVERS), error)
                })?;
                write(&mut self.stats, names::DNS_STATS, slot, 0)?;
                self.released += count;
                self.last_change.remove(&slot);
            }
        }
        Ok(())
    }

    pub(crate) fn status(&self) -> Result<InterceptionStatus, DatapathError> {
        let map = self.resolvers.read();
        Ok(InterceptionStatus {
            released: self.released,
            ..read_status(self.state.mode, &map, &self.stats)?
        })
    }
}

/// The status from the pinned maps, without an agent.
pub(crate) fn read_pinned(pins: &Pins) -> Result<InterceptionStatus, DatapathError> {
    let shim: Array<MapData, Shim> = layout::open_pin(pins, names::SHIM)?;
    let mode = read(&shim, names::SHIM, 0)?.mode;
    read_status(
        mode,
        &layout::open_pinned_hash(pins, names::RESOLVERS)?,
        &layout::open_pin(pins, names::DNS_STATS)?,
    )
}

fn read_status(
    mode: u32,
    map: &ResolverMap,
    stats: &Array<MapData, u64>,
) -> Result<InterceptionStatus, DatapathError> {
    let count = |counter| read(stats, names::DNS_STATS, counter);
    let mut status = InterceptionStatus {
        on: mode != Shim::OFF,
        listed_only: mode == Shim::LISTED,
        resolvers: Vec::new(),
        heartbeat_stale: count(dns::AGENT_STALE)?,
        slots_full: count(dns::SLOTS_FULL)?,
        released: 0,
    };
    for (slot, resolver) in occupied(map)? {
        let (address, listed) = (address::from_ip(resolver.address), resolver.listed != 0);
        status.resolvers.push(InterceptedResolver { address, listed, intercepted: count(slot)? });
    }
    status.resolvers.sort_by_key(|resolver| resolver.address);
    Ok(status)
}

/// Flags of an update (uapi/linux/bpf.h): only a new element, only an existing one.
const NOEXIST: u64 = 1;
const EXIST: u64 = 2;

/// The map as a [`SlotTable`]. The programs claim slots concurrently.
struct SlotClaims<'t>(RefCell<&'t mut ResolverMap>);

impl SlotTable for SlotClaims<'_> {
    fn state(&self, slot: u32, wanted: Ip6Be) -> SlotState {
        match look_up(&self.0.borrow(), slot) {
            Ok(Some(resolver)) if resolver.address == wanted && resolver.listed != 0 => {
                SlotState::Listed
            }
            Ok(Some(resolver)) if resolver.address == wanted => SlotState::Unlisted,
            Ok(None) => SlotState::Free,
            _ => SlotState::Other,
        }
    }

    fn claim(&self, slot: u32, resolver: Ip6Be) -> bool {
        insert(
            &mut self.0.borrow_mut(),
            slot,
            Resolver { address: resolver, listed: 1, padding: 0 },
            NOEXIST,
        )
        .is_ok()
    }
}

/// The occupied slots, with a few system calls for each.
fn occupied(map: &ResolverMap) -> Result<Vec<(u32, Resolver)>, DatapathError> {
    let mut found = Vec::new();
    for slot in map.keys() {
        let slot =
            slot.map_err(|error| DatapathError::call(format!("list {}", names::RESOLVERS), error))?;
        found.extend(look_up(map, slot)?.map(|resolver| (slot, resolver)));
    }
    Ok(found)
}

fn look_up(map: &ResolverMap, slot: u32) -> Result<Option<Resolver>, DatapathError> {
    match map.get(&slot, 0) {
        Ok(resolver) => Ok(Some(resolver)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(DatapathError::call(format!("read {}[{slot}]", names::RESOLVERS), error)),
    }
}

fn insert(
    map: &mut ResolverMap,
    slot: u32,
    resolver: Resolver,
    flags: u64,
) -> Result<(), DatapathError> {
    map.insert(slot, resolver, flags)
        .map_err(|error| DatapathError::call(format!("write {}[{slot}]", names::RESOLVERS), error))
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
