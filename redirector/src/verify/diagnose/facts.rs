//! What is known besides what the probe saw.

use std::net::{IpAddr, SocketAddr};

use crate::{
    control::api::{Counters, RouteView},
    verify::{
        lookups::ports,
        process::Process,
        report::{Candidate, SourceAddresses},
    },
};

/// What is known besides what the probe saw.
pub(in crate::verify) struct Facts<'a> {
    pub(in crate::verify) name: &'a str,
    /// The name that the route serves, which may have a suffix of the search list.
    pub(in crate::verify) wanted: &'a str,
    /// The name that was looked up, and its route.
    pub(in crate::verify) asked: Option<&'a Candidate>,
    pub(in crate::verify) port: u16,
    /// The route before the probe, and after it.
    pub(in crate::verify) before: &'a RouteView,
    pub(in crate::verify) after: Option<&'a RouteView>,
    /// Whether an agent answers.
    pub(in crate::verify) agent: bool,
    /// Where the shim listens.
    pub(in crate::verify) listen: &'a [SocketAddr],
    /// Whether an address is in the pool.
    pub(in crate::verify) in_pool: &'a dyn Fn(IpAddr) -> bool,
    /// Whether the programs are attached anywhere, and to a cgroup at or above the executor's.
    pub(in crate::verify) attached: bool,
    pub(in crate::verify) covered: bool,
    /// The cgroup, as text.
    pub(in crate::verify) cgroup: String,
    pub(in crate::verify) process: Option<&'a Process>,
    pub(in crate::verify) source: &'a SourceAddresses,
}

impl Facts<'_> {
    pub(super) fn before_name(&self) -> String {
        self.before.source.as_ref().map_or_else(|| self.name.to_owned(), ToString::to_string)
    }

    /// How much a counter of the route grew while the probe ran.
    pub(super) fn grew(&self, counter: impl Fn(&Counters) -> u64) -> u64 {
        let read = |route: Option<&RouteView>| {
            route.and_then(|route| route.counters.as_ref()).map_or(0, &counter)
        };
        read(self.after).saturating_sub(read(Some(self.before)))
    }

    /// The backends that were tried while the probe ran; all of them when that is not known.
    pub(super) fn tried(&self) -> String {
        let route = self.after.unwrap_or(self.before);
        let started = |route: &RouteView, address: IpAddr| {
            let backend = route.backends.iter().find(|backend| backend.address == address);
            backend.and_then(|backend| backend.counters).map_or(0, |counters| counters.started)
        };
        let all: Vec<_> = route.backends.iter().map(|backend| backend.address).collect();
        let tried: Vec<_> = all
            .iter()
            .copied()
            .filter(|&address| started(route, address) > started(self.before, address))
            .collect();
        let named = if tried.is_empty() { all } else { tried };
        named
            .iter()
            .map(|address| SocketAddr::new(*address, self.destination_port()).to_string())
            .collect::<Vec<_>>()
            .join(" and ")
    }

    /// The load balancer's port.
    pub(super) fn destination_port(&self) -> u16 {
        ports(self.before).and_then(|ports| ports.destination(self.port)).unwrap_or(self.port)
    }
}
