//! The datapath, attached to the places' interfaces.

use std::{net::IpAddr, os::unix::fs::MetadataExt as _};

use anyhow::{Context as _, Result, ensure};
use redirector::{
    config::CgroupSpec,
    datapath::{
        self, Datapath, InterfaceRole, InterfaceTarget, NameCgroup, NameChange, PublishedName,
    },
    plan::{Change, PlannedRoute},
    route::OnNoBackend,
};

use crate::{
    fixture::settings,
    init,
    network::{
        netlink,
        places::{GUEST_PORT, NETKIT_PRIMARY, TAGGED_PORT, UPLINKS, has_netkit},
    },
};

/// The level of [`init::ATTACHED`] in the hierarchy.
const ATTACHED_LEVEL: u32 = 1;
/// The TTL of answers, in seconds.
const TTL: u32 = 30;

/// The attached datapath of every scenario.
pub(super) struct PacketFixture {
    /// None after the agent's end.
    datapath: Option<Datapath>,
}

impl PacketFixture {
    pub(super) fn new() -> Result<Self> {
        let mut fixture = Self { datapath: None };
        fixture.start_agent(false)?;
        Ok(fixture)
    }

    /// Loads, or adopts what is pinned, and attaches; to filters of clsact if the caller wants them
    /// on any kernel.
    pub(super) fn start_agent(&mut self, force_clsact: bool) -> Result<()> {
        let mut datapath = Datapath::open(&settings()?)?;
        if force_clsact {
            datapath.force_clsact();
        }
        let cgroups = [CgroupSpec::Pattern(init::ATTACHED.to_owned())];
        datapath.attach(&datapath::cgroups(&cgroups)?)?;
        let id = std::fs::metadata(init::ATTACHED).context("no cgroup")?.ino();
        datapath.set_name_cgroups(&[NameCgroup { id, level: Some(ATTACHED_LEVEL) }])?;
        datapath.set_name_settings(TTL, true)?;
        self.datapath = Some(datapath);
        self.attach_interfaces()
    }

    pub(super) fn attach_interfaces(&mut self) -> Result<()> {
        let failures = self.datapath()?.attach_interfaces(&targets()?)?;
        ensure!(failures.is_empty(), "{failures:?}");
        Ok(())
    }

    /// Ends the agent: what is pinned continues.
    pub(super) fn end_agent(&mut self) {
        self.datapath = None;
    }

    pub(super) fn datapath(&mut self) -> Result<&mut Datapath> {
        self.datapath.as_mut().context("no agent")
    }

    pub(super) fn put(&mut self, index: u32, route: PlannedRoute) -> Result<()> {
        Ok(self.datapath()?.apply(&[Change::Put { index, route }])?)
    }

    /// Publishes a source for the VIP of `index`.
    pub(super) fn publish(&mut self, source: &str, name: PublishedName) -> Result<()> {
        let source = source.parse()?;
        Ok(self.datapath()?.publish_names(&[NameChange::Put { source, name }])?)
    }
}

/// A route to these backends.
pub(super) fn route(backends: &[IpAddr]) -> PlannedRoute {
    PlannedRoute {
        backends: Some(backends.to_vec()),
        on_no_backend: OnNoBackend::Refuse,
        ..PlannedRoute::default()
    }
}

/// Every interface that the agent would attach to.
fn targets() -> Result<Vec<InterfaceTarget>> {
    let netkit = has_netkit().then_some(NETKIT_PRIMARY);
    let guests = [GUEST_PORT, TAGGED_PORT].into_iter().chain(netkit);
    let guests = guests.map(|name| (name, InterfaceRole::Guest));
    let host = ["lo", "br0"].into_iter().chain(UPLINKS).map(|name| (name, InterfaceRole::Host));
    guests
        .chain(host)
        .map(|(name, role)| {
            Ok(InterfaceTarget {
                index: netlink::index(name)?,
                name: name.to_owned(),
                role,
                redirects: role == InterfaceRole::Guest,
            })
        })
        .collect()
}
