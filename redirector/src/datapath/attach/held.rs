//! Descriptors of our maps and links: while the agent holds them, they stay in force although their
//! pins are removed or the bpf file system is unmounted, and they can be pinned again.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    path::Path,
};

use redirector_common::names;

use crate::datapath::{
    error::DatapathError,
    pins::layout::{self, Pins},
    sys,
};

/// The most links that are held, some of the descriptors that a process may have. Others are
/// attached again when their pins are gone.
const MAX_LINKS: usize = 4096;

/// What another process had done to a cgroup with so many programs that were detached, and links
/// that were not pinned. For a person.
pub(crate) fn describe(cgroup: &Path, detached: usize, unpinned: usize) -> Option<String> {
    let cgroup = cgroup.display();
    match (detached, unpinned) {
        (0, 0) => None,
        (0, _) => Some(format!("the pins of {unpinned} programs at {cgroup} were removed")),
        _ => Some(format!("{detached} programs were detached from {cgroup}")),
    }
}

/// The descriptors.
#[derive(Default)]
pub(crate) struct Held {
    maps: Vec<(&'static str, OwnedFd)>,
    links: BTreeMap<(u64, &'static str), OwnedFd>,
}

impl Held {
    /// The pinned maps.
    pub(crate) fn maps_of(pins: &Pins) -> Self {
        let open = |name: &&'static str| Some((*name, sys::open_pin(&pins.map(name)).ok()?));
        Self { maps: names::MAPS.iter().filter_map(open).collect(), links: BTreeMap::new() }
    }

    /// Pins the maps again whose pins are gone.
    pub(crate) fn restore_maps(&self, pins: &Pins) -> Result<Option<String>, DatapathError> {
        let mut restored = 0;
        for (name, map) in &self.maps {
            let pin = pins.map(name);
            if !pin.exists() {
                layout::pin(map, &pin)?;
                restored += 1;
            }
        }
        Ok((restored > 0).then(|| format!("the pins of {restored} maps were removed")))
    }

    /// Holds a link, in place of an earlier one.
    pub(crate) fn hold(&mut self, cgroup: u64, program: &'static str, link: OwnedFd) {
        self.links.remove(&(cgroup, program));
        if self.links.len() < MAX_LINKS {
            self.links.insert((cgroup, program), link);
        }
    }

    /// The link of a program to a cgroup.
    pub(crate) fn link(&self, cgroup: u64, program: &'static str) -> Option<&OwnedFd> {
        self.links.get(&(cgroup, program))
    }

    /// The cgroups with links that are held.
    pub(crate) fn cgroups(&self) -> BTreeSet<u64> {
        self.links.keys().map(|(cgroup, _)| *cgroup).collect()
    }

    /// The programs with a link to a cgroup.
    pub(crate) fn programs(&self, cgroup: u64) -> Vec<String> {
        let links = self.links.keys().filter(|(id, _)| *id == cgroup);
        links.map(|(_, program)| (*program).to_owned()).collect()
    }

    /// Detaches from a cgroup, whose pins may be gone.
    pub(crate) fn detach(&mut self, cgroup: u64) {
        for link in self.links.extract_if(.., |(id, _), _| *id == cgroup).map(|(_, link)| link) {
            // Fails for a link that was detached by its pin.
            let _ = sys::detach_link(&link);
        }
    }
}
