//! What a process has that decides where its connects go: its cgroup, its resolver, its
//! environment. Read from /proc, changes nothing.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use super::hosts::Hosts;
use crate::{
    datapath,
    net::{PortOwner, SearchList, Transport, nameservers},
    printable::printable,
};

/// Bytes read of a file at most; the files read here are smaller.
const MAX_FILE_LEN: u64 = 8 << 20;
/// Variables that send a client to a proxy instead of the name it was given (curl reads the small
/// ones only, most read both).
const PROXY_VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
/// Programs whose guests have a kernel or a network stack of their own, by the beginning of their
/// names (the kernel keeps 15 characters).
const VMMS: [(&str, &str); 5] = [
    ("firecracker", "Firecracker"),
    ("qemu-", "QEMU"),
    ("cloud-hyperviso", "Cloud Hypervisor"),
    ("runsc", "gVisor"),
    ("gvisor", "gVisor"),
];

/// The process that answers at a nameserver on loopback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalResolver {
    /// Its ID, in our PID namespace.
    pub pid: u32,
    /// Its command's name.
    pub command: String,
    /// Its cgroup's directory, as [`Process::cgroup`].
    pub cgroup: Option<PathBuf>,
}

/// What /proc has about a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its ID, in our PID namespace.
    pub pid: u32,
    /// Its command's name.
    pub command: String,
    /// Its cgroup's directory, below the cgroup2 mount here; null when it is unknown.
    pub cgroup: Option<PathBuf>,
    /// Whether its network namespace is ours, which is the node's.
    pub host_network: bool,
    /// The nameservers of its own /etc/resolv.conf.
    pub nameservers: Vec<IpAddr>,
    /// The process that answers at its first nameserver, if that is on loopback; null when it is
    /// not found.
    pub local_resolver: Option<LocalResolver>,
    /// Its search list, which also depends on its variables LOCALDOMAIN and RES_OPTIONS.
    pub search: SearchList,
    /// The name and value of each variable that names a proxy.
    pub proxies: Vec<(String, String)>,
    /// Its NO_PROXY.
    pub no_proxy: Option<String>,
    /// The monitor of a guest that this process is, such as `Firecracker`.
    pub guest: Option<String>,
    /// Names and addresses of its own /etc/hosts.
    #[serde(skip)]
    pub hosts: Hosts,
}

impl LocalResolver {
    /// The one that a process asks at `server`.
    fn find(process: &procfs::process::Process, server: SocketAddr) -> Option<Self> {
        if !server.ip().is_loopback() {
            return None;
        }
        let owner = PortOwner::in_network_of(process, server, Transport::Udp)?;
        let resolver = procfs::process::Process::new(i32::try_from(owner.pid).ok()?).ok()?;
        let command = printable(&owner.command).into_owned();
        Some(Self { pid: owner.pid, command, cgroup: cgroup_of(&resolver) })
    }
}

impl Process {
    /// Reads /proc of `pid`.
    ///
    /// # Errors
    /// When there is no such process, or it may not be read.
    pub fn read(pid: u32) -> anyhow::Result<Self> {
        let id = i32::try_from(pid).unwrap_or(i32::MAX);
        let process = procfs::process::Process::new(id).map_err(|error| match error {
            procfs::ProcError::NotFound(_) => anyhow::anyhow!(
                "there is no process {pid} here: give a PID of the node, not one of a container"
            ),
            error => anyhow::Error::from(error).context(format!("failed to read process {pid}")),
        })?;
        let command = process.stat().with_context(|| format!("failed to read process {pid}"))?.comm;
        let ours = fs::metadata("/proc/self/ns/net")
            .context("failed to read our own network namespace")?;
        let theirs = fs::metadata(format!("/proc/{pid}/ns/net"))
            .with_context(|| format!("failed to read the network namespace of process {pid}"))?;
        let environment = process.environ().unwrap_or_default();
        let variable = |name: &str| {
            let value = environment.get(OsStr::new(name))?;
            (!value.is_empty()).then(|| value.to_string_lossy().into_owned())
        };
        let text = |path: &str| {
            read_in(pid, path)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default()
        };
        let resolv_conf = text("etc/resolv.conf");
        let servers = nameservers::parse(&resolv_conf);
        Ok(Self {
            pid,
            cgroup: cgroup_of(&process),
            host_network: (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
            local_resolver: servers
                .first()
                .and_then(|server| LocalResolver::find(&process, *server)),
            nameservers: servers.iter().map(SocketAddr::ip).collect(),
            search: SearchList::parse(&resolv_conf).with_environment(
                variable("LOCALDOMAIN").as_deref(),
                variable("RES_OPTIONS").as_deref(),
            ),
            proxies: PROXY_VARIABLES
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), variable(name)?)))
                .collect(),
            no_proxy: variable("NO_PROXY").or_else(|| variable("no_proxy")),
            guest: VMMS
                .iter()
                .find(|(name, _)| command.starts_with(name))
                .map(|(_, monitor)| (*monitor).to_owned()),
            hosts: Hosts::parse(&text("etc/hosts")),
            command: printable(&command).into_owned(),
        })
    }

    /// The first variable that sends requests for `name` to a proxy, unless NO_PROXY exempts it.
    pub fn proxy_for(&self, name: &str) -> Option<&(String, String)> {
        let exempt = self
            .no_proxy
            .as_deref()
            .is_some_and(|list| list.split(',').any(|entry| exempts(entry.trim(), name)));
        self.proxies
            .iter()
            .find(|(variable, _)| !exempt && !variable.eq_ignore_ascii_case("HTTP_PROXY"))
    }
}

/// Whether an entry of NO_PROXY covers `name`: itself, or the end of it at a dot.
fn exempts(entry: &str, name: &str) -> bool {
    let entry = entry.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
    let name = name.to_ascii_lowercase();
    !entry.is_empty()
        && (name == entry || name.strip_suffix(&entry).is_some_and(|rest| rest.ends_with('.')))
}

/// Reads a file as process `pid` sees it. Links inside are followed inside: a container can't make
/// us read the host's files.
///
/// # Errors
/// When there is no such file, or it may not be read.
pub(super) fn read_in(pid: u32, path: &str) -> io::Result<Vec<u8>> {
    let root = rustix::fs::openat(
        CWD,
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY,
        Mode::empty(),
    )?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat2(
        root,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?;
    let mut bytes = Vec::new();
    fs::File::from(file).take(MAX_FILE_LEN).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The directory of a process's cgroup below the mount that the datapath uses. The kernel gives the
/// path relative to our cgroup namespace, which is not always the mount's root: then it is searched
/// for.
fn cgroup_of(process: &procfs::process::Process) -> Option<PathBuf> {
    let pid = u32::try_from(process.pid()).ok()?;
    let mount = datapath::cgroup2_mount().ok()?;
    let relative = process.cgroups().ok()?.into_iter().find(|cgroup| cgroup.hierarchy == 0)?;
    let relative = Path::new(relative.pathname.trim_end_matches(" (deleted)"));
    let root = mount_root(&mount).unwrap_or_else(|| "/".into());
    let below = relative.strip_prefix(&root).or_else(|_| relative.strip_prefix("/")).ok()?;
    let plain = !below.components().any(|part| part == std::path::Component::ParentDir);
    Some(mount.join(below)).filter(|path| plain && holds(path, pid)).or_else(|| search(&mount, pid))
}

/// Which directory of the hierarchy is mounted at `mount`.
fn mount_root(mount: &Path) -> Option<String> {
    let mounts = procfs::process::Process::myself().ok()?.mountinfo().ok()?;
    let mut mounted =
        mounts.into_iter().filter(|at| at.fs_type == "cgroup2" && at.mount_point == mount);
    mounted.next_back().map(|at| at.root)
}

fn holds(cgroup: &Path, pid: u32) -> bool {
    fs::read_to_string(cgroup.join("cgroup.procs"))
        .is_ok_and(|pids| pids.lines().any(|line| line.parse() == Ok(pid)))
}

fn search(folder: &Path, pid: u32) -> Option<PathBuf> {
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        if holds(&folder, pid) {
            return Some(folder);
        }
        open.extend(datapath::subfolders(&folder).unwrap_or_default());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_its_own_command_and_network() {
        let process = Process::read(std::process::id()).expect("we are here");
        assert!(process.host_network && process.guest.is_none() && !process.command.is_empty());
        assert!(process.cgroup.is_some_and(|path| holds(&path, std::process::id())));
        let error = Process::read(u32::MAX - 1).expect_err("no such process");
        assert!(error.to_string().contains("there is no process"), "{error}");
    }

    fn with(proxies: &[(&str, &str)], no_proxy: Option<&str>) -> Process {
        let mut process = Process::read(std::process::id()).expect("we are here");
        process.proxies =
            proxies.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        process.no_proxy = no_proxy.map(str::to_owned);
        process
    }

    #[test]
    fn a_proxy_counts_unless_no_proxy_exempts_the_name() {
        let name = "artifactory.internal.company.net";
        let proxy = [("HTTPS_PROXY", "http://proxy:3128")];
        assert!(with(&proxy, None).proxy_for(name).is_some());
        assert!(with(&proxy, Some("localhost, .other.net")).proxy_for(name).is_some());
        for exempt in [
            ".internal.company.net",
            "*.company.net",
            "company.net",
            "a.b,ARTIFACTORY.internal.company.net",
        ] {
            assert!(with(&proxy, Some(exempt)).proxy_for(name).is_none(), "{exempt}");
        }
        assert!(with(&proxy, Some("pany.net")).proxy_for(name).is_some(), "not at a dot");
        assert!(
            with(&[("http_proxy", "http://proxy:3128")], None).proxy_for(name).is_none(),
            "not for https"
        );
    }
}
