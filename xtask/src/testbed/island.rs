//! A network with loopback, a device that leads nowhere, and a resolv.conf: where servers and resolvers meet on port 53, and nothing that a
//! client sends can leave.

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::mounts::{ResolvConf, View};
use super::{Namespaces, network};

/// systemd-resolved asks nobody before the machine has an address besides loopback's.
const DEVICES: &str = "link set lo up\nlink add nowhere type veth peer name beyond\naddress add 192.0.2.1/32 dev nowhere\nlink set beyond up\nlink set nowhere up\n";

/// Namespaces without a way out, with an /etc and a /run of their own.
#[derive(Debug)]
pub struct Island {
    namespaces: Namespaces,
    _stage: TempDir,
}

impl Island {
    /// A new one; needs root.
    pub fn new(resolv: &ResolvConf) -> Result<Self> {
        let stage = tempfile::tempdir().context("failed to make a folder")?;
        let namespaces = Namespaces::create(|| {
            View::new(stage.path(), resolv)?;
            network::ip(DEVICES)
        })
        .context("failed to make an island")?;
        Ok(Self { namespaces, _stage: stage })
    }

    /// Puts another resolv.conf in place of the one that is there.
    pub fn set_resolv_conf(&self, resolv: &ResolvConf) -> Result<()> {
        self.namespaces.run(|| resolv.write())?
    }

    /// Runs `action` on a thread inside; threads and programs that it starts are inside, too.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespaces.run(action)
    }
}
