//! The place of a guest: a network namespace from which packets arrive at one of this host's
//! interfaces, and which no cgroup hook of ours sees.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    net::IpAddr,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
    nsid::{NsidAttribute, NsidMessage},
};
use rustix::{
    fd::AsFd,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use serde::{Deserialize, Serialize};

use crate::{
    host,
    net::{RESOLV_CONF, nameservers, route_socket::RouteSocket},
};

/// Where `ip netns` and Docker keep the namespaces that have names.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// The place of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestPlace {
    /// A file that stands for the network namespace.
    pub netns: PathBuf,
    /// The interface of this host that its packets arrive at, if it was named.
    pub interface: Option<String>,
    /// The nameservers to query.
    pub nameservers: Vec<IpAddr>,
}

impl GuestPlace {
    /// The namespace with this name or path.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn netns(name: &Path, servers: Vec<IpAddr>) -> anyhow::Result<Self> {
        let candidates = match name.components().count() {
            1 => NAMED.iter().map(|folder| Path::new(folder).join(name)).collect(),
            _ => vec![name.to_owned()],
        };
        let Some(netns) = candidates.iter().find(|path| path.exists()) else {
            let tried: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
            bail!(
                "there is no network namespace `{}` (looked for {}): `ip netns list` shows those \
                    with a name, and /proc/PID/ns/net is that of a process",
                name.display(),
                tried.join(" and ")
            );
        };
        Ok(Self { nameservers: or_defaults(servers, netns), netns: netns.clone(), interface: None })
    }

    /// The namespace at the other end of this interface.
    ///
    /// # Errors
    /// When the interface has no other end that a process can enter, or it is not found.
    pub(crate) fn interface(name: &str, servers: Vec<IpAddr>) -> anyhow::Result<Self> {
        // Not /sys, which shows the network namespace that mounted it.
        let links = host::links().context("failed to list the interfaces")?;
        let link = links.into_iter().find(|link| link.name == name).with_context(|| {
            format!(
                "this host has no interface `{name}`: `redirector status` lists those that are \
                    served"
            )
        })?;
        if link.kind == "tun" {
            bail!(
                "a virtual machine is behind {name}, and no process of this host can enter it: \
                    run the acceptance test in the guest; here `redirector events --follow` shows \
                    its connects, and `redirector explain NAME --interface {name}` what they meet"
            );
        }
        let Some(peer) = link.peer.filter(|_| matches!(link.kind.as_str(), "veth" | "netkit"))
        else {
            bail!(
                "{name} has no other end in a namespace (it is no veth): name the namespace of a \
                    guest by --netns"
            );
        };
        let found = namespaces().into_iter().find(|netns| has_peer(netns, peer, link.index));
        let netns = found.with_context(|| {
            format!(
                "failed to find the namespace at the other end of {name}: no process is in it; \
                    name it by --netns"
            )
        })?;
        let nameservers = or_defaults(servers, &netns);
        Ok(Self { netns, interface: Some(name.to_owned()), nameservers })
    }

    /// What to call it.
    pub fn label(&self) -> String {
        match &self.interface {
            Some(interface) => format!("{}, behind {interface}", self.netns.display()),
            None => self.netns.display().to_string(),
        }
    }
}

/// The nameservers that were named, else those of `ip netns`, else this host's that another
/// namespace can reach.
fn or_defaults(servers: Vec<IpAddr>, netns: &Path) -> Vec<IpAddr> {
    if !servers.is_empty() {
        return servers;
    }
    let own = netns.file_name().map(|name| Path::new("/etc/netns").join(name).join("resolv.conf"));
    let files = own.into_iter().chain([PathBuf::from(RESOLV_CONF)]);
    let listed = |file: PathBuf| -> Option<Vec<IpAddr>> {
        let text = fs::read_to_string(file).ok()?;
        let servers = nameservers::parse(&text).into_iter().map(|server| server.ip());
        Some(servers.filter(|server| !server.is_loopback()).collect())
    };
    files.filter_map(listed).find(|servers| !servers.is_empty()).unwrap_or_default()
}

/// Every network namespace but ours that has a name or a process, each once.
fn namespaces() -> Vec<PathBuf> {
    let named = NAMED.iter().flat_map(fs::read_dir).flatten().flatten().map(|entry| entry.path());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let of_processes = processes
        .filter(|entry| entry.file_name().to_str().is_some_and(numbered))
        .map(|entry| entry.path().join("ns/net"));
    let ours = fs::metadata("/proc/self/ns/net").map(|ours| ours.ino()).unwrap_or_default();
    let mut seen = BTreeSet::from([ours]);
    let is_new = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| seen.insert(found.ino()));
    named.chain(of_processes).filter(is_new).collect()
}

/// Whether the namespace has interface `index`, whose other end is interface `peer` of ours: an
/// interface of a nested namespace may have the same indices. Asked on a thread of its own, which
/// ends there.
fn has_peer(netns: &Path, index: u32, peer: u32) -> bool {
    let (Ok(file), Ok(ours)) = (File::open(netns), File::open("/proc/thread-self/ns/net")) else {
        return false;
    };
    let ask = move || -> anyhow::Result<bool> {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        let mut socket = RouteSocket::open()?;
        let Some(ours) = id_of(&mut socket, &ours)? else { return Ok(false) };
        let mut wanted = LinkMessage::default();
        wanted.header.index = index;
        let found = socket.get(RouteNetlinkMessage::GetLink(wanted))?;
        let Some(RouteNetlinkMessage::NewLink(link)) = found else { return Ok(false) };
        let has = |attribute| link.attributes.contains(&attribute);
        Ok(has(LinkAttribute::Link(peer)) && has(LinkAttribute::LinkNetNsId(ours)))
    };
    std::thread::spawn(ask).join().is_ok_and(|found| found.unwrap_or(false))
}

/// The ID by which the calling thread's network namespace knows another one; none if it has no
/// interface whose other end is there.
fn id_of(socket: &mut RouteSocket, netns: &File) -> io::Result<Option<i32>> {
    let mut wanted = NsidMessage::default();
    wanted.attributes.push(NsidAttribute::Fd(netns.as_raw_fd() as u32));
    let found = socket.get(RouteNetlinkMessage::GetNsId(wanted))?;
    let Some(RouteNetlinkMessage::NewNsId(found)) = found else { return Ok(None) };
    Ok(found.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) if *id >= 0 => Some(*id),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_cannot_be_entered_is_refused_with_the_reason() {
        let refused = |error: anyhow::Error, words: &str| {
            assert!(error.to_string().contains(words), "{error}");
        };
        let none = GuestPlace::netns(Path::new("no-such-netns"), Vec::new());
        refused(none.expect_err("no namespace"), "there is no network namespace `no-such-netns`");
        let none = GuestPlace::interface("no-such-if", Vec::new());
        refused(none.expect_err("no interface"), "this host has no interface `no-such-if`");
        let none = GuestPlace::interface("lo", Vec::new());
        refused(none.expect_err("no peer"), "has no other end in a namespace");
    }

    #[test]
    fn named_nameservers_win_over_the_hosts() {
        let server: IpAddr = [10, 96, 0, 10].into();
        let place = GuestPlace::netns(Path::new("/proc/self/ns/net"), vec![server]);
        assert_eq!(place.expect("ours").nameservers, [server]);
    }
}
