//! A rig: a node and a customer, wired together.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Result;

use crate::customer::Customer;
use crate::executor::{Executor, ExecutorOptions};
use crate::isolation::scope::RigScope;
use crate::node::Node;

/// A node and a customer's site. It has no server, agent or executor yet. It is removed when
/// everything that was made from it has been dropped.
#[derive(Debug)]
pub struct Rig {
    /// The machine that the agent runs on.
    pub node: Node,
    /// The customer's side of the internet.
    pub customer: Customer,
    executors: AtomicU8,
    scope: Arc<RigScope>,
}

impl Rig {
    /// Makes the namespaces and the link between them, after sweeping what dead rigs left. Needs
    /// root; takes about 50 ms.
    pub fn new() -> Result<Self> {
        let scope = RigScope::new()?;
        let customer = Customer::new(&scope)?;
        let node = Node::new(&scope, customer.sandbox().namespaces())?;
        customer.connect_link()?;
        Ok(Self { node, customer, executors: AtomicU8::new(1), scope })
    }

    /// A new executor on the node.
    pub fn executor(&self, options: ExecutorOptions) -> Result<Executor> {
        let number = self.executors.fetch_add(1, Ordering::Relaxed);
        Executor::new(&self.node, number, options, self.customer.ca_pem())
    }

    /// The rig's name, which is also that of its cgroup directory and its folder.
    pub fn name(&self) -> &str {
        self.scope.name()
    }

    /// The rig's folder on the host: logs, keys, configurations.
    pub fn files(&self) -> &Path {
        self.scope.files()
    }
}
