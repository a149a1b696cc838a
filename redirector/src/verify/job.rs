//! Makes the probe's job from the options of `verify`.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;

use super::{
    guest_place::GuestPlace,
    lookups::ports,
    probe::{Job, Protocol, Until},
    process::{Process, read_in},
    report::Candidate,
    target::{SSH_PORTS, Scheme, Target},
};
use crate::{control::api::RouteView, route::RawDestination};

/// Where systems keep the certificate authorities that they trust, below the root.
const BUNDLES: [&str; 4] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
];

/// What to verify, and from where.
#[derive(Clone, Debug)]
pub(crate) struct VerifyOptions {
    pub(crate) target: Target,
    /// The cgroup to run in; none: the process's, or the first that is attached.
    pub(crate) cgroup: Option<PathBuf>,
    /// The process to run as.
    pub(crate) process: Option<Process>,
    /// The place of a guest to act from.
    pub(crate) guest: Option<GuestPlace>,
    /// The authorities to trust instead of those of the location.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) until: Until,
    pub(crate) plain: bool,
    pub(crate) timeout: Duration,
    /// The nameservers if no process is given.
    pub(crate) shim: Vec<SocketAddr>,
}

pub(super) fn job(
    wanted: &VerifyOptions,
    (candidates, name, route): (&[Candidate], &str, &RouteView),
    cgroup: Option<&Path>,
    backend: Option<SocketAddr>,
) -> anyhow::Result<Job> {
    let process = wanted.process.as_ref();
    let vips = [route.vip.ipv4.map(IpAddr::V4), route.vip.ipv6.map(IpAddr::V6)];
    Ok(Job {
        name: wanted.target.name.clone(),
        port: wanted.target.port,
        candidates: candidates.iter().map(|candidate| candidate.name.clone()).collect(),
        wanted: name.to_owned(),
        cgroup: cgroup.map(Path::to_owned),
        pid: process.map(|process| process.pid),
        netns: wanted.guest.as_ref().map(|guest| guest.netns.clone()),
        hosts: process.and_then(|process| process.hosts.address(&wanted.target.name)),
        nameservers: nameservers(wanted),
        expected: vips.into_iter().flatten().collect(),
        roots: roots(wanted.ca.as_deref(), process)?,
        until: wanted.until,
        protocol: protocol(wanted, route),
        may_be_ssh: wanted.target.scheme.is_none() && wanted.target.port != 443,
        path: wanted.target.path.clone(),
        timeout: wanted.timeout,
        backend,
    })
}

/// What the server should speak.
pub(super) fn protocol(wanted: &VerifyOptions, route: &RouteView) -> Protocol {
    let port = wanted.target.port;
    let behind = ports(route).and_then(|ports| ports.destination(port)).unwrap_or(port);
    match wanted.target.scheme {
        Some(Scheme::Ssh) => Protocol::Ssh,
        Some(Scheme::Http) => Protocol::Plain,
        _ if wanted.plain => Protocol::Plain,
        Some(Scheme::Https) => Protocol::Tls,
        None if port == 80 => Protocol::Plain,
        None if SSH_PORTS.contains(&port) || SSH_PORTS.contains(&behind) => Protocol::Ssh,
        None => Protocol::Tls,
    }
}

/// The nameservers of the process or of the guest's place, else the shim.
fn nameservers(wanted: &VerifyOptions) -> Vec<SocketAddr> {
    let of_process = wanted.process.as_ref().map(|process| &process.nameservers);
    let of_guest = || wanted.guest.as_ref().map(|guest| &guest.nameservers);
    match of_process.or_else(of_guest) {
        Some(servers) => servers.iter().map(|&server| SocketAddr::new(server, 53)).collect(),
        None => wanted.shim.clone(),
    }
}

/// The authorities that the executor trusts: `--ca`, or the bundle of its own image, or this
/// node's.
pub(super) fn roots(ca: Option<&Path>, process: Option<&Process>) -> anyhow::Result<String> {
    if let Some(path) = ca {
        return std::fs::read_to_string(path)
            .with_context(|| format!("failed to read {}", path.display()));
    }
    let inside = |path: &&str| read_in(process?.pid, path).ok();
    let outside = |path: &&str| std::fs::read(Path::new("/").join(path)).ok();
    let bundle = BUNDLES.iter().find_map(inside).or_else(|| BUNDLES.iter().find_map(outside));
    Ok(bundle.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
}

/// An address of the load balancer, with the port that a connect would go to.
pub(super) fn backend(route: &RouteView, port: u16) -> Option<SocketAddr> {
    let port = ports(route).and_then(|ports| ports.destination(port)).unwrap_or(port);
    route.backends.first().map(|backend| SocketAddr::new(backend.address, port))
}

pub(super) fn expected_sources(route: &RouteView) -> Vec<IpAddr> {
    let written = route.definition.iter().flat_map(|raw| raw.source_ips.iter().flatten());
    written.filter_map(|address| address.parse().ok()).collect()
}

/// The platform's own acceptance test.
pub(super) fn acceptance(target: &Target, is_ssh: bool, route: &RouteView) -> Option<String> {
    let destination = match &route.definition.as_ref()?.destination {
        RawDestination::One(name) => name.clone(),
        RawDestination::Many(addresses) => addresses.first()?.clone(),
    };
    let (name, port) = (&target.name, target.port);
    let to = ports(route).and_then(|ports| ports.destination(port)).unwrap_or(port);
    if is_ssh {
        return Some(format!("ssh -T -p {to} -o HostKeyAlias={name} git@{destination}"));
    }
    let url = target.url();
    let url = if target.path == "/" { url.trim_end_matches('/') } else { &url };
    Some(format!("curl --connect-to {name}:{port}:{destination}:{to} {url}"))
}
