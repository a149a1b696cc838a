//! Nothing at all, and programs that do nothing: the limits.

use std::net::SocketAddrV4;

use anyhow::Result;
use testbed::{Executor, Sandbox};

use super::{
    cgroup_programs::{self, Attached},
    peer::{BACKENDS, Peer, Routes},
    site::Site,
};

/// Clients that connect to a backend itself.
pub(crate) struct Direct {
    label: &'static str,
    target: SocketAddrV4,
    _attached: Option<Attached>,
    executor: Executor,
}

impl Direct {
    /// No program at the client's cgroup.
    pub(crate) fn bare(site: &Site) -> Result<Self> {
        let (label, executor) = ("bare", site.executor("bare")?);
        Ok(Self { label, target: site.backend(BACKENDS[0]), _attached: None, executor })
    }

    /// Programs that return at once, at every hook that redirector uses.
    pub(crate) fn empty(site: &Site) -> Result<Self> {
        let executor = site.executor("empty")?;
        let cgroup = cgroup_programs::cgroup(executor.sandbox())?;
        let attached = Some(cgroup_programs::attach_empty(&cgroup)?);
        let target = site.backend(BACKENDS[0]);
        Ok(Self { label: "empty programs", target, _attached: attached, executor })
    }
}

impl Peer for Direct {
    fn label(&self) -> &'static str {
        self.label
    }

    fn sandbox(&self) -> &Sandbox {
        self.executor.sandbox()
    }

    fn has_routes(&self) -> bool {
        false
    }

    fn load(&mut self, _routes: Routes) -> Result<()> {
        Ok(())
    }

    fn target(&self, _number: u32) -> Result<SocketAddrV4> {
        Ok(self.target)
    }

    fn spread(&self) -> u32 {
        1
    }

    fn first_target(&self) -> SocketAddrV4 {
        self.target
    }
}
