//! A rig: a node and a customer, wired together, and the ground they stand on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result};

use super::customer::Customer;
use super::executor::{Executor, ExecutorOptions};
use super::identity;
use super::interrupt::{self, Remains};
use super::node::Node;
use super::{cgroup, network};

/// The node's static source address, which the load balancers admit.
pub const NODE_ADDRESS: &str = "198.51.100.1";
/// The node's second static source address.
pub const NODE_ADDRESS_2: &str = "198.51.100.2";

/// What a rig leaves to the kernel's care in no case: its cgroup directory and its folder. Removed
/// when the last user is gone.
#[derive(Debug)]
pub(super) struct Ground {
    name: String,
    remains: Remains,
}

impl Ground {
    fn new() -> Result<Arc<Self>> {
        let (below, temporary) = (cgroup::mount_point()?, std::env::temp_dir());
        sweep(&below, &temporary);
        let name = identity::new_name()?;
        let remains = Remains { cgroup: below.join(&name), files: temporary.join(&name) };
        interrupt::guard(&remains)?;
        let ground = Self { name, remains };
        cgroup::make(ground.cgroup())?;
        fs::create_dir_all(ground.files())
            .with_context(|| format!("failed to make {}", ground.files().display()))?;
        Ok(Arc::new(ground))
    }

    /// The rig's cgroup directory.
    pub(super) fn cgroup(&self) -> &Path {
        &self.remains.cgroup
    }

    /// The rig's folder on the host.
    pub(super) fn files(&self) -> &Path {
        &self.remains.files
    }

    /// A folder of this name in the rig's folder, made when it is not there.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.files().join(name);
        fs::create_dir_all(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Err(error) = self.remains.remove() {
            eprintln!("{error:#}");
        }
        interrupt::release(&self.remains);
    }
}

/// A node and a customer's site. No server, agent or executor runs yet. All that is made from it
/// must be dropped for it to vanish.
#[derive(Debug)]
pub struct Rig {
    /// The machine that the agent runs on.
    pub node: Node,
    /// The customer's side of the internet.
    pub customer: Customer,
    executors: AtomicU8,
    ground: Arc<Ground>,
}

impl Rig {
    /// Makes the namespaces and the link between them, after sweeping what dead rigs left. Takes
    /// some 50 ms, and needs root.
    pub fn new() -> Result<Self> {
        let ground = Ground::new()?;
        let customer = Customer::new(&ground)?;
        let node = Node::new(&ground, customer.place().namespaces())?;
        customer.place().namespaces().run(|| network::ip(super::customer::LINK))??;
        Ok(Self { node, customer, executors: AtomicU8::new(1), ground })
    }

    /// A new executor on the node.
    pub fn executor(&self, options: ExecutorOptions) -> Result<Executor> {
        let number = self.executors.fetch_add(1, Ordering::Relaxed);
        Executor::new(&self.node, number, options, self.customer.ca_pem())
    }

    /// The rig's name: its cgroup directory and its folder are called so.
    pub fn name(&self) -> &str {
        &self.ground.name
    }

    /// The rig's folder on the host: logs, keys, configurations.
    pub fn files(&self) -> &Path {
        self.ground.files()
    }
}

/// What this process's rigs have left on the machine; empty when they took everything down.
pub fn leftovers() -> Result<Vec<PathBuf>> {
    let own = format!("-{}-", std::process::id());
    let folders = [cgroup::mount_point()?, std::env::temp_dir()];
    let found = folders.iter().flat_map(|folder| {
        identity::named_in(folder).into_iter().map(|name| (folder.join(&name), name))
    });
    Ok(found
        .filter(|(_, name)| name.contains(&own) && !identity::is_orphan(name))
        .map(|(path, _)| path)
        .collect())
}

/// Removes what rigs of dead processes left behind.
fn sweep(cgroups: &Path, temporary: &Path) {
    let names = identity::named_in(cgroups).into_iter().chain(identity::named_in(temporary));
    for name in names.filter(|name| identity::is_orphan(name)) {
        let remains = Remains { cgroup: cgroups.join(&name), files: temporary.join(&name) };
        if let Err(error) = remains.remove() {
            eprintln!("{error:#}");
        }
    }
}
