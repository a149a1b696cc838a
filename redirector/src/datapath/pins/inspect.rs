//! The state of the datapath from its pins, without an agent; and its removal.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv6Addr},
    path::Path,
    time::Duration,
};

use ipnet::IpNet;
use redirector_common::{
    abi::ABI,
    agent::AgentState,
    backend::Health,
    names,
    packet::{
        name::{NameSettings, ReverseEntry},
        stats::PacketStats,
    },
    stats::RouteCounters,
};
use serde::{Deserialize, Serialize};

use crate::datapath::{
    attach::{
        hierarchy::cgroup_paths,
        interfaces::{pinned, removal, target::InterfaceAttachment},
        links,
    },
    error::DatapathError,
    maps::{
        arrays::read,
        counters::Counters,
        flow_counts::{self, FlowCounts},
        health_words::words,
        resolvers::{self, InterceptionStatus},
        route_layout::IdentifiedAddr,
        route_maps::RouteMaps,
    },
    pins::{
        layout::{self, Pins, open_pin},
        pools::{pool_of, pool6_of, pools_of},
        upgrade,
    },
    status::{Attachment, BackendStatus},
    sys::monotonic_ns,
};

/// The state in the pins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedStatus {
    /// Version of the maps.
    pub abi: u32,
    /// The pool of VIPs.
    pub pool: String,
    /// The IPv6 pool, if there is one.
    pub pool_ipv6: Option<String>,
    /// The process ID of the agent that wrote last, in its own pid namespace.
    pub agent_pid: u32,
    /// Time since that agent's last heartbeat; absent before the first.
    pub heartbeat_age: Option<Duration>,
    /// The cgroups whose sockets are redirected.
    pub attachments: Vec<Attachment>,
    /// The interfaces that the packet programs are attached to.
    pub interfaces: Vec<InterfaceAttachment>,
    /// The flows of guests, by the index of their interface.
    pub flows: BTreeMap<u32, FlowCounts>,
    /// The routes in the maps.
    pub routes: Vec<PinnedRoute>,
    /// DNS interception at sockets while an agent runs, with its counters.
    pub interception: InterceptionStatus,
    /// The names that are answered by packet, and what the packet programs counted.
    pub names: PinnedNames,
}

/// The names that are answered by packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedNames {
    /// Whether they are answered.
    pub enabled: bool,
    /// How many have a virtual address.
    pub live: usize,
    /// What the packet programs counted.
    pub stats: PacketStats,
}

/// A route in the maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedRoute {
    /// Its VIP.
    pub vip: IpAddr,
    /// Its IPv6 VIP, if there is an IPv6 pool.
    pub vip6: Option<Ipv6Addr>,
    /// Its backends.
    pub backends: Vec<BackendStatus>,
    /// The outcomes of its connects.
    pub counters: RouteCounters,
    /// Queries for its source that were answered by packet.
    pub answers: u64,
}

/// What [`unload`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Links, one for each program and cgroup.
    pub links: usize,
    /// Maps.
    pub maps: usize,
    /// Cgroups that we are no longer attached to.
    pub cgroups: usize,
    /// Packet programs, one for each interface and direction.
    pub packet_programs: usize,
    /// Interfaces that we are no longer attached to.
    pub interfaces: usize,
    /// The pool that was served, if the maps had one.
    pub pool: Option<String>,
    /// The IPv6 pool that was served.
    pub pool_ipv6: Option<String>,
    /// Former pools that were still served.
    pub former_pools: Vec<String>,
}

/// Reads the pins below `bpffs`; `None` if there are none.
///
/// # Errors
///
/// [`DatapathError::AbiMismatch`] for another version's pins, [`DatapathError::NotPermitted`]
/// without the capability to open them.
pub fn inspect(bpffs: &Path) -> Result<Option<PinnedStatus>, DatapathError> {
    let pins = Pins::new(bpffs);
    if !pins.exist()? {
        return match pins.newest_other_abi() {
            Some(found) => Err(DatapathError::AbiMismatch { found, ours: ABI }),
            None => Ok(None),
        };
    }
    let Some(agent) = upgrade::agent_state(&pins)?.filter(|agent| agent.abi != 0) else {
        return Ok(None);
    };
    let paths = cgroup_paths();
    Ok(Some(PinnedStatus {
        abi: agent.abi,
        pool: pool_of(&agent).to_string(),
        pool_ipv6: pool6_of(&agent).map(|net| net.to_string()),
        agent_pid: agent.pid,
        heartbeat_age: (agent.heartbeat_ns != 0)
            .then(|| Duration::from_nanos(monotonic_ns().saturating_sub(agent.heartbeat_ns))),
        attachments: links::attachments(&pins.with_older(), |id| paths.get(&id).cloned()),
        interfaces: pinned::attachments(&pins.with_older()),
        flows: flow_counts::read(&pins)?,
        routes: routes(&pins, &agent)?,
        interception: resolvers::read_pinned(&pins)?,
        names: names(&pins)?,
    }))
}

/// DNS interception while an agent runs, from the pins below `bpffs`; `None` if there are none.
///
/// # Errors
///
/// If they can't be opened or read.
pub fn pinned_interception(bpffs: &Path) -> Result<Option<InterceptionStatus>, DatapathError> {
    let pins = Pins::new(bpffs);
    pins.exist()?.then(|| resolvers::read_pinned(&pins)).transpose()
}

fn names(pins: &Pins) -> Result<PinnedNames, DatapathError> {
    let settings = open_pin::<NameSettings>(pins, names::NAME_SETTINGS)?;
    let stats = open_pin::<PacketStats>(pins, names::PACKET_STATS)?;
    // Each live name has one reverse name.
    let reverse = layout::open_pinned_hash::<u32, ReverseEntry>(pins, names::REVERSE_NAMES)?;
    Ok(PinnedNames {
        enabled: read(&settings, names::NAME_SETTINGS, 0)?.enabled != 0,
        live: reverse.keys().filter(Result::is_ok).count(),
        stats: read(&stats, names::PACKET_STATS, 0)?,
    })
}

/// The pools of the pins below `bpffs`, former ones included; empty if there are none.
///
/// # Errors
///
/// If they can't be read.
pub fn pinned_pools(bpffs: &Path) -> Result<Vec<IpNet>, DatapathError> {
    let in_force = layout::versions(bpffs).into_iter().filter(|pins| !pins.is_staged());
    let states = in_force.map(|pins| upgrade::agent_state(&pins));
    let states = states.collect::<Result<Vec<_>, _>>()?;
    Ok(states.iter().flatten().flat_map(pools_of).collect())
}

/// Removes what a start that has failed had prepared.
pub fn discard_prepared(bpffs: &Path) -> Result<(), DatapathError> {
    let mut prepared = layout::versions(bpffs).into_iter().filter(Pins::is_staged);
    prepared.try_for_each(|pins| pins.remove().map(drop))
}

fn vip6(agent: &AgentState, index: u32) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from_bits(pool6_of(agent)?.network().to_bits() | u128::from(index)))
}

fn routes(pins: &Pins, agent: &AgentState) -> Result<Vec<PinnedRoute>, DatapathError> {
    let maps = RouteMaps::open(pins)?;
    let counters = Counters::open(pins)?;
    let health = open_pin::<Health>(pins, names::HEALTH)?;
    let answers = open_pin::<u64>(pins, names::ANSWERS)?;
    let now = monotonic_ns();
    let mut routes = Vec::new();
    for index in 0..maps.len() {
        let entry = maps.entry(index)?;
        if !entry.is_present() {
            continue;
        }
        let identified = maps.block(entry)?.into_iter().flat_map(|block| block.backends);
        let backend = |(address, id): IdentifiedAddr| {
            counters.backend((address, id), words(&health, id)?, now)
        };
        routes.push(PinnedRoute {
            vip6: vip6(agent, index),
            vip: std::net::Ipv4Addr::from_bits(agent.pool_base.to_bits().wrapping_add(index))
                .into(),
            backends: identified.map(backend).collect::<Result<_, DatapathError>>()?,
            counters: counters.route(index)?,
            answers: read(&answers, names::ANSWERS, index)?,
        });
    }
    Ok(routes)
}

/// Whether an agent that starts at `bpffs` finds pins of its own version or of an older one.
///
/// # Errors
///
/// [`DatapathError::AbiMismatch`] for a newer version's pins, [`DatapathError::NotBpffs`].
pub fn has_pins(bpffs: &Path) -> Result<bool, DatapathError> {
    let pins = Pins::new(bpffs);
    pins.refuse_newer_version()?;
    Ok(pins.exist()? || !pins.older().is_empty() || !pins.former().is_empty())
}

/// Detaches everything of ours that is pinned below `bpffs`, of any version, and removes every pin.
///
/// # Errors
///
/// The first pin that can't be removed; those before it are removed.
pub fn unload(bpffs: &Path) -> Result<Removed, DatapathError> {
    Pins::new(bpffs).exist()?;
    let mut removed = Removed::default();
    let versions = layout::versions(bpffs);
    (removed.interfaces, removed.packet_programs) = removal::detach_all(&versions)?;
    for pins in versions {
        if let Some(agent) =
            upgrade::agent_state(&pins).ok().flatten().filter(|agent| agent.abi != 0)
        {
            let pool = Some(pool_of(&agent).to_string());
            let pool_ipv6 = pool6_of(&agent).map(|net| net.to_string());
            if pins.is_former() {
                removed.former_pools.extend(pool.into_iter().chain(pool_ipv6));
            } else {
                (removed.pool, removed.pool_ipv6) = (pool, pool_ipv6);
            }
        }
        let (links, cgroups, maps) = pins.remove()?;
        removed.links += links;
        removed.cgroups += cgroups;
        removed.maps += maps;
    }
    if bpffs.is_dir() && layout::names_in(bpffs).is_empty() {
        // A mount point stays.
        let _ = fs::remove_dir(bpffs);
    }
    Ok(removed)
}
