//! A network namespace with loopback, a device on which nothing answers, and a resolv.conf: servers
//! and resolvers can use port 53, and no packet can leave.

use std::fs;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};
use tempfile::TempDir;

use super::mounts::{ResolvConf, View};
use super::namespaces::Namespaces;
use super::network;

/// systemd-resolved sends no query while loopback has the only address.
const DEVICES: &str = "link set lo up\nlink add nowhere type veth peer name beyond\naddress add \
    192.0.2.1/32 dev nowhere\nlink set beyond up\nlink set nowhere up\n";

/// Namespaces without a way out, with an /etc and a /run of their own.
#[derive(Debug)]
pub struct IsolatedNetns {
    namespaces: Namespaces,
    _stage: TempDir,
}

impl IsolatedNetns {
    /// Makes one; needs root.
    pub fn new(resolv: &ResolvConf) -> Result<Self> {
        let stage = tempfile::tempdir().context("failed to make a folder")?;
        let namespaces = Namespaces::create(|| {
            View::new(stage.path(), resolv)?;
            network::ip(DEVICES)
        })
        .context("failed to make an isolated network")?;
        Ok(Self { namespaces, _stage: stage })
    }

    /// Replaces the resolv.conf.
    pub fn set_resolv_conf(&self, resolv: &ResolvConf) -> Result<()> {
        self.namespaces.run(|| resolv.write())?
    }

    /// Makes `core` receive loopback's packets (receive packet steering); `None`: the core that
    /// sends them.
    pub fn steer_loopback(&self, core: Option<u32>) -> Result<()> {
        // The host's sysfs would show the host's devices.
        const SYSFS: &str = "/run/sys";
        let cores = core.map_or(0_u64, |core| 1 << core);
        self.namespaces.run(|| {
            if !fs::exists(SYSFS).context("failed to look for a sysfs")? {
                fs::create_dir(SYSFS).context("failed to make a folder for a sysfs")?;
                mount("redirector-rig", SYSFS, "sysfs", MountFlags::empty(), None)
                    .context("failed to mount a sysfs")?;
            }
            fs::write(format!("{SYSFS}/class/net/lo/queues/rx-0/rps_cpus"), format!("{cores:x}"))
                .context("failed to steer loopback's packets: does this kernel have CONFIG_RPS?")
        })?
    }

    /// Runs `action` on a thread inside; threads and programs that it starts are inside, too.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespaces.run(action)
    }
}
