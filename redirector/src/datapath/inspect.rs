//! The datapath seen from its pins alone, without an agent; and its removal.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv6Addr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::maps::{Array, Map, MapData};
use ipnet::{Ipv4Net, Ipv6Net};
use redirector_common::{abi::ABI, addr::Ip6Be, agent::AgentState, backend::BackendId, names, route::RouteEntry};
use serde::{Deserialize, Serialize};

use super::{
    Attachment, DatapathError, RouteCounters, cgroup2_mount, links, object,
    pins::{self, Pins},
    placed::Placed,
    tables::{self, read},
};

/// What the pins tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedStatus {
    /// Version of the tables.
    pub abi: u32,
    /// The pool of VIPs.
    pub pool: String,
    /// The IPv6 pool, if there is one.
    pub pool_ipv6: Option<String>,
    /// Process id of the agent that wrote last, in its own pid namespace.
    pub agent_pid: u32,
    /// Time since that agent's last sign of life; absent before the first.
    pub heartbeat_age: Option<Duration>,
    /// The cgroups whose sockets are redirected.
    pub attachments: Vec<Attachment>,
    /// The routes in the tables.
    pub routes: Vec<PinnedRoute>,
}

/// A route in the tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedRoute {
    /// Its virtual address.
    pub vip: IpAddr,
    /// Its virtual IPv6 address, if there is a pool of them.
    pub vip6: Option<Ipv6Addr>,
    /// Its backends' addresses.
    pub backends: Vec<IpAddr>,
    /// What became of its connects.
    pub counters: RouteCounters,
}

/// What [`unload`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Links, one for each program and cgroup.
    pub links: usize,
    /// Tables.
    pub maps: usize,
    /// Cgroups that nothing of ours is attached to any more.
    pub cgroups: usize,
    /// The pool that was served, if the tables said it.
    pub pool: Option<String>,
    /// The IPv6 pool that was served.
    pub pool_ipv6: Option<String>,
}

/// Reads the pins below `bpffs`; nothing when there are none.
///
/// # Errors
///
/// [`DatapathError::OtherAbi`] for another version's pins, [`DatapathError::NotPermitted`] without the capability to open them.
pub fn inspect(bpffs: &Path) -> Result<Option<PinnedStatus>, DatapathError> {
    let pins = Pins::new(bpffs);
    if !pins.exist()? {
        return match pins.other_abi() {
            Some(found) => Err(DatapathError::OtherAbi { found, ours: ABI }),
            None => Ok(None),
        };
    }
    let Some(agent) = agent_state(&pins)? else { return Ok(None) };
    let paths = cgroup_paths();
    Ok(Some(PinnedStatus {
        abi: agent.abi,
        pool: pool_of(&agent).to_string(),
        pool_ipv6: pool6_of(&agent).map(|net| net.to_string()),
        agent_pid: agent.pid,
        heartbeat_age: (agent.heartbeat_ns != 0).then(|| Duration::from_nanos(tables::monotonic_ns().saturating_sub(agent.heartbeat_ns))),
        attachments: links::attachments(&pins, |id| paths.get(&id).cloned()),
        routes: routes(&pins, &agent)?,
    }))
}

fn agent_state(pins: &Pins) -> Result<Option<AgentState>, DatapathError> {
    if !pins.map(names::AGENT).exists() {
        return Ok(None);
    }
    let agent = read(&open::<AgentState>(pins, names::AGENT)?, names::AGENT, 0)?;
    Ok((agent.abi != 0).then_some(agent))
}

fn pool_of(agent: &AgentState) -> Ipv4Net {
    Ipv4Net::new_assert(agent.pool_base.octets().into(), agent.pool_prefix.min(32) as u8)
}

fn pool6_of(agent: &AgentState) -> Option<Ipv6Net> {
    let base = Some(agent.pool6_base).filter(|base| !base.is_unspecified())?;
    Some(Ipv6Net::new_assert(object::from_ip6(base), 96 + agent.pool_prefix.min(32) as u8))
}

fn vip6(agent: &AgentState, index: u32) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from_bits(pool6_of(agent)?.network().to_bits() | u128::from(index)))
}

fn routes(pins: &Pins, agent: &AgentState) -> Result<Vec<PinnedRoute>, DatapathError> {
    let entries = open::<RouteEntry>(pins, names::ROUTES)?;
    let slots = open::<redirector_common::route::Slot>(pins, names::SLOTS)?;
    let stats = open::<redirector_common::stats::RouteStats>(pins, names::ROUTE_STATS)?;
    let backends6 = open::<Ip6Be>(pins, names::BACKENDS6)?;
    let mut routes = Vec::new();
    for index in 0..entries.len() {
        let entry = read(&entries, names::ROUTES, index)?;
        if !entry.is_present() {
            continue;
        }
        let slot = |index| if index < slots.len() { read(&slots, names::SLOTS, index).map(Some) } else { Ok(None) };
        let address6 = |id: BackendId| Ok(object::from_ip6(read(&backends6, names::BACKENDS6, id.0)?));
        let placed = Placed::read(entry, slot, address6)?;
        routes.push(PinnedRoute {
            vip6: vip6(agent, index),
            vip: std::net::Ipv4Addr::from_bits(agent.pool_base.number().wrapping_add(index)).into(),
            backends: placed.into_iter().flat_map(|placed| placed.backends).map(|(address, _)| address).collect(),
            counters: read(&stats, names::ROUTE_STATS, index)?.into(),
        });
    }
    Ok(routes)
}

fn open<V: aya::Pod>(pins: &Pins, name: &str) -> Result<Array<MapData, V>, DatapathError> {
    let path = pins.map(name);
    let data = MapData::from_pin(&path).map_err(|error| match error {
        aya::maps::MapError::SyscallError(error) => {
            super::object::from_io(&format!("open the pinned table {}", path.display()), error.io_error)
        }
        other => DatapathError::call(format!("open the pinned table {}", path.display()), other),
    })?;
    Array::try_from(Map::Array(data)).map_err(|error| DatapathError::call(format!("open the pinned table {}", path.display()), error))
}

/// The path of every cgroup here, by number.
fn cgroup_paths() -> HashMap<u64, PathBuf> {
    let mut paths = HashMap::new();
    let Ok(mount) = cgroup2_mount() else { return paths };
    let mut open = vec![mount];
    while let Some(folder) = open.pop() {
        if let Ok(metadata) = fs::metadata(&folder) {
            paths.insert(metadata.ino(), folder.clone());
        }
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        open.extend(entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
    paths
}

/// Detaches everything that is pinned below `bpffs` and removes every pin: links first, so that no program outlives its tables' names.
///
/// # Errors
///
/// The first pin that can't be removed; those before it are gone.
pub fn unload(bpffs: &Path) -> Result<Removed, DatapathError> {
    let pins = Pins::new(bpffs);
    pins.exist()?;
    let agent = agent_state(&pins).ok().flatten();
    let mut removed = Removed {
        pool: agent.as_ref().map(|agent| pool_of(agent).to_string()),
        pool_ipv6: agent.as_ref().and_then(pool6_of).map(|net| net.to_string()),
        ..Removed::default()
    };
    for version in versions(bpffs) {
        for cgroup in pins::names_in(&version.join("links")) {
            let folder = version.join("links").join(cgroup);
            // Connect last in the order of attaching, so first here.
            let mut names = pins::names_in(&folder);
            names.sort_by_key(|name| !name.starts_with("rd_connect"));
            for name in names {
                removed.links += usize::from(pins::remove(&folder.join(name))?);
            }
            pins::remove_folder(&folder)?;
            removed.cgroups += 1;
        }
        for name in pins::names_in(&version.join("maps")) {
            removed.maps += usize::from(pins::remove(&version.join("maps").join(name))?);
        }
        for folder in [version.join("links"), version.join("maps"), version] {
            pins::remove_folder(&folder)?;
        }
    }
    if bpffs.is_dir() && pins::names_in(bpffs).is_empty() {
        // The mount point itself, when the whole bpf file system is ours: that stays.
        let _ = fs::remove_dir(bpffs);
    }
    Ok(removed)
}

/// The folders of every version of ours.
fn versions(bpffs: &Path) -> Vec<PathBuf> {
    let is_version = |name: &String| name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
    pins::names_in(bpffs).into_iter().filter(is_version).map(|name| bpffs.join(name)).collect()
}
