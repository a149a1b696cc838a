//! A container of a user without privileges: its packets end in a tap device. A process of the user
//! reads them there, and connects with sockets of its own in the node's network.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::guest::Guest;
use super::rootless_user::{RUNTIME, RootlessUser};
use crate::isolation::mounts::ResolvConf;
use crate::isolation::sandbox::Sandbox;
use crate::packages;
use crate::process::{self, Finished};
use crate::service::Service;

/// Longest time of each step until the container has a network.
const LIMIT: Duration = Duration::from_secs(60);

/// The first program of a container: it waits in new namespaces, with a resolver of its own.
const INIT: &str = "mount --bind \"$HOME/resolv.conf\" /etc/resolv.conf && ip link set lo up && \
    exec sleep 1000";
/// No port of the container is published, and none of the node is shown to it.
const PASTA: [&str; 12] = [
    "--foreground",
    "--config-net",
    "--dns-forward",
    PASTA_NAMESERVER,
    "-t",
    "none",
    "-u",
    "none",
    "-T",
    "none",
    "-U",
    "none",
];
const SLIRP4NETNS: [&str; 4] =
    ["--configure", "--mtu=65520", "--disable-host-loopback", "--enable-ipv6"];
/// Where Podman 5 has pasta take queries.
const PASTA_NAMESERVER: &str = "169.254.1.1";

/// What carries a container's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// slirp4netns, as Podman up to version 4 starts it.
    Slirp4netns,
    /// pasta, as Podman 5 starts it.
    Pasta,
    /// RootlessKit with slirp4netns, as Docker starts it.
    RootlessKit,
}

impl Carrier {
    /// The resolver in the container: the address at which the carrier takes queries, and asks the
    /// node's resolver.
    pub fn nameserver(self) -> &'static str {
        match self {
            Self::Slirp4netns | Self::RootlessKit => "10.0.2.3",
            Self::Pasta => PASTA_NAMESERVER,
        }
    }
}

/// A container that runs.
#[derive(Debug)]
pub struct RootlessGuest {
    sandbox: Sandbox,
    init: String,
    _services: Vec<Service>,
}

impl RootlessGuest {
    /// Starts a container with its carrier in the cgroup of the user's host. The container's
    /// commands run in that of `sandbox`.
    pub fn start(user: &RootlessUser, carrier: Carrier, sandbox: Sandbox) -> Result<Self> {
        let home = user.host().sandbox().home().to_owned();
        let resolv = ResolvConf::of(carrier.nameserver()).text();
        fs::write(home.join("resolv.conf"), resolv).context("failed to write a resolv.conf")?;
        let (init, services) = match carrier {
            Carrier::RootlessKit => rootlesskit(user, &home)?,
            Carrier::Slirp4netns | Carrier::Pasta => carried(user, carrier, &sandbox, &home)?,
        };
        let guest = Self { sandbox, init, _services: services };
        let has_route = || Ok(!guest.run("ip route show default", LIMIT)?.stdout.trim().is_empty());
        if let Err(error) = process::until("a container's network", LIMIT, has_route) {
            let logs: Vec<_> = guest._services.iter().map(Service::tail).collect();
            return Err(error).with_context(|| format!("{carrier:?}: {}", logs.join("\n")));
        }
        Ok(guest)
    }
}

/// New namespaces in the cgroup of `sandbox`, and what carries their packets.
fn carried(
    user: &RootlessUser,
    carrier: Carrier,
    sandbox: &Sandbox,
    home: &Path,
) -> Result<(String, Vec<Service>)> {
    let mut init = user.command(sandbox, "unshare")?;
    init.args(["--map-root-user", "--map-auto", "--net", "--mount", "/bin/sh", "-c", INIT]);
    let init = Service::start("unshare", &home.join("init.log"), init)?;
    let pid = init.pid().to_string();
    // Its last program has the mapping and the devices.
    let is_up = || Ok(fs::read_to_string(format!("/proc/{pid}/comm"))?.trim() == "sleep");
    process::until("a container's first program", LIMIT, is_up).context(init.tail())?;
    let (program, options): (_, &[&str]) = match carrier {
        Carrier::Pasta => ("pasta", &PASTA),
        _ => ("slirp4netns", &SLIRP4NETNS),
    };
    let mut command = user.command(user.host().sandbox(), packages::path_of(program)?)?;
    command.args(options).arg(&pid);
    if carrier == Carrier::Slirp4netns {
        command.arg("tap0");
    }
    let carrier = Service::start(program, &home.join("carrier.log"), command)?;
    Ok((pid, vec![carrier, init]))
}

/// RootlessKit, which makes the namespaces and starts slirp4netns itself.
fn rootlesskit(user: &RootlessUser, home: &Path) -> Result<(String, Vec<Service>)> {
    let state = Path::new(RUNTIME).join("rootlesskit");
    let mut command = user.command(user.host().sandbox(), packages::path_of("rootlesskit")?)?;
    command.args(["--net=slirp4netns", "--disable-host-loopback", "--copy-up=/etc"]);
    command.arg("--state-dir").arg(&state).args(["sleep", "1000"]);
    let mut service = Service::start("rootlesskit", &home.join("carrier.log"), command)?;
    let (host, mut pid) = (user.host().sandbox(), String::new());
    service.wait_ready(LIMIT, || {
        pid = host.read(state.join("child_pid")).unwrap_or_default().trim().to_owned();
        Ok(!pid.is_empty())
    })?;
    Ok((pid, vec![service]))
}

impl Guest for RootlessGuest {
    fn run(&self, line: &str, limit: Duration) -> Result<Finished> {
        let mut command = self.sandbox.command(packages::path_of("nsenter")?);
        command.args(["--target", &self.init, "--user", "--net", "--mount"]);
        command.arg(format!("--wd={}", self.sandbox.home().display()));
        command.args(["/bin/sh", "-c", line]);
        process::finish(command, limit).with_context(|| format!("failed to run `{line}`"))
    }
}
