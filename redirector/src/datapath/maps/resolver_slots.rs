//! DNS interception from the agent's side: what is intercepted, which resolver has which slot, and
//! what came of it.

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

/// Ports that the shim needs for intercepted DNS, one for each resolver that executors ask at a
/// time.
pub const DNS_SLOTS: u16 = SLOTS as u16;

/// A resolver that nobody asked for this long gives its slot back when few are left. No client
/// waits that long for a reply.
const IDLE: Duration = Duration::from_secs(60);
/// Few: as many free slots.
const FEW: usize = SLOTS as usize / 4;

type ResolverTable = HashMap<MapData, u32, Resolver>;

/// Where the shim listens for intercepted DNS: of each family the address, and the port of slot 0,
/// which the others follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShimEndpoint {
    /// Its IPv4 address; without it queries to IPv4 resolvers are left alone.
    pub ipv4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// The port of slot 0; [`SLOTS`] ports are the shim's.
    pub first_port: u16,
}

/// What is intercepted.
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

/// A resolver whose queries are, or were, intercepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterceptedResolver {
    /// Its address.
    pub address: IpAddr,
    /// Whether the configuration names it.
    pub listed: bool,
    /// Connects, and datagrams of sockets that are not connected, that were taken to the shim.
    pub intercepted: u64,
}

/// What is intercepted, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterceptionStatus {
    /// Whether anything is, as long as the agent lives.
    pub on: bool,
    /// Whether that is only what goes to listed resolvers.
    pub listed_only: bool,
    /// The resolvers that have a slot.
    pub resolvers: Vec<InterceptedResolver>,
    /// Connects and datagrams that were left alone since the agent gave no sign of life.
    pub heartbeat_stale: u64,
    /// Those that were left alone since every slot had another resolver.
    pub slots_full: u64,
    /// Those that were taken to the shim for resolvers that have lost their slot since.
    pub released: u64,
}

/// The tables of interception.
pub(crate) struct ResolverSlots {
    shim: Array<MapData, Shim>,
    state: Shim,
    resolvers: Arc<RwLock<ResolverTable>>,
    stats: Array<MapData, u64>,
    /// When each slot's counter was seen to move last.
    last_change: BTreeMap<u32, (u64, Instant)>,
    /// What the counters of slots said that were freed.
    released: u64,
}

/// Tells which resolver a slot stands for.
#[derive(Clone)]
pub struct ResolverLookup(Arc<RwLock<ResolverTable>>);

impl ResolverLookup {
    /// The resolver of `slot`; nothing when it has none.
    pub fn resolver(&self, slot: u32) -> Option<IpAddr> {
        let table = self.0.read();
        table.get(&slot, 0).ok().map(|resolver| address::from_ip(resolver.address))
    }
}

impl ResolverSlots {
    /// Takes the tables of a loaded object. What they say stays, until [`ResolverSlots::set_shim`].
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

    /// See [`crate::datapath::Datapath::set_shim`]. Off first, since the programs look at one word after the
    /// other.
    pub(crate) fn set_shim(&mut self, at: &ShimEndpoint) -> Result<(), DatapathError> {
        self.set_mode(Shim::OFF)?;
        let ip4 = at.ipv4.map_or_else(Ip4Be::default, |ip| Ip4Be::from_octets(ip.octets()));
        let ip6 = at.ipv6.map_or_else(Ip6Be::default, address::ip6);
        self.state = Shim { ip4, ip6, first_port: at.first_port.into(), ..self.state };
        write(&mut self.shim, names::SHIM, 0, self.state)
    }

    /// See [`crate::datapath::Datapath::intercept`].
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

    /// Marks these resolvers, and no others, as listed; those without a slot get one, if one is
    /// free.
    fn mark_listed(&self, listed: &[IpAddr]) -> Result<(), DatapathError> {
        let mut table = self.resolvers.write();
        for &address in listed {
            if find_slot(
                &SlotClaims(RefCell::new(&mut table)),
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
            let Some(found) = look_up(&table, slot)? else { continue };
            let wanted = u32::from(listed.contains(&address::from_ip(found.address)));
            if found.listed != wanted {
                insert(&mut table, slot, Resolver { listed: wanted, ..found }, EXIST)?;
            }
        }
        Ok(())
    }

    pub(crate) fn resolver_lookup(&self) -> ResolverLookup {
        ResolverLookup(Arc::clone(&self.resolvers))
    }

    /// See [`crate::datapath::Datapath::release_idle_resolvers`].
    pub(crate) fn release_idle(&mut self) -> Result<(), DatapathError> {
        let mut table = self.resolvers.write();
        let mut taken = Vec::new();
        for (slot, resolver) in occupied(&table)? {
            taken.push((slot, resolver, read(&self.stats, names::DNS_STATS, slot)?));
        }
        self.last_change.retain(|slot, _| taken.iter().any(|(known, ..)| known == slot));
        let now = Instant::now();
        let few_free = SLOTS as usize - taken.len() < FEW;
        for (slot, resolver, count) in taken {
            let last_change = self.last_change.entry(slot).or_insert((count, now));
            if last_change.0 != count {
                *last_change = (count, now);
            } else if few_free && resolver.listed == 0 && now.duration_since(last_change.1) >= IDLE
            {
                let removed = table.remove(&slot);
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
        let table = self.resolvers.read();
        Ok(InterceptionStatus {
            released: self.released,
            ..read_status(self.state.mode, &table, &self.stats)?
        })
    }
}

/// What the pinned tables tell, without an agent.
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
    table: &ResolverTable,
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
    for (slot, resolver) in occupied(table)? {
        let (address, listed) = (address::from_ip(resolver.address), resolver.listed != 0);
        status.resolvers.push(InterceptedResolver { address, listed, intercepted: count(slot)? });
    }
    status.resolvers.sort_by_key(|resolver| resolver.address);
    Ok(status)
}

/// Flags of an update (uapi/linux/bpf.h): only a new element, only one that is there.
const NOEXIST: u64 = 1;
const EXIST: u64 = 2;

/// The table as the search for a slot reads it; the programs claim slots at the same time.
struct SlotClaims<'t>(RefCell<&'t mut ResolverTable>);

impl SlotTable for SlotClaims<'_> {
    fn state(&self, slot: u32, asked: Ip6Be) -> SlotState {
        match look_up(&self.0.borrow(), slot) {
            Ok(Some(resolver)) if resolver.address == asked && resolver.listed != 0 => {
                SlotState::Listed
            }
            Ok(Some(resolver)) if resolver.address == asked => SlotState::Unlisted,
            Ok(None) => SlotState::Free,
            _ => SlotState::Other,
        }
    }

    fn claim(&self, slot: u32, asked: Ip6Be) -> bool {
        insert(
            &mut self.0.borrow_mut(),
            slot,
            Resolver { address: asked, listed: 1, padding: 0 },
            NOEXIST,
        )
        .is_ok()
    }
}

/// The slots that have a resolver. Costs as many calls as there are.
fn occupied(table: &ResolverTable) -> Result<Vec<(u32, Resolver)>, DatapathError> {
    let mut found = Vec::new();
    for slot in table.keys() {
        let slot = slot.map_err(|error| {
            DatapathError::call(format!("go through {}", names::RESOLVERS), error)
        })?;
        found.extend(look_up(table, slot)?.map(|resolver| (slot, resolver)));
    }
    Ok(found)
}

fn look_up(table: &ResolverTable, slot: u32) -> Result<Option<Resolver>, DatapathError> {
    match table.get(&slot, 0) {
        Ok(resolver) => Ok(Some(resolver)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(DatapathError::call(format!("read {}[{slot}]", names::RESOLVERS), error)),
    }
}

fn insert(
    table: &mut ResolverTable,
    slot: u32,
    resolver: Resolver,
    flags: u64,
) -> Result<(), DatapathError> {
    table
        .insert(slot, resolver, flags)
        .map_err(|error| DatapathError::call(format!("write {}[{slot}]", names::RESOLVERS), error))
}

/// The kernel's number for this thread's network namespace; 0, which means the initial one, where
/// the kernel does not tell (before 5.14).
fn netns_cookie() -> u64 {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let cookie = || -> io::Result<u64> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
        // SAFETY: the kernel writes at most `length` bytes into the number.
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
