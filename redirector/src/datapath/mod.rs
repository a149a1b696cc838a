//! The programs, tables, links and pins in the kernel: the only place that knows aya.
//!
//! | file | is |
//! |---|---|
//! | `object` | the embedded programs: loading them onto new or pinned tables |
//! | `pins` | where everything is pinned, and by whom |
//! | `shape` | comparing pinned tables with the ones that this binary would make |
//! | `blocks` | which slots and backend numbers are free: the oldest freed ones are reused first |
//! | `placed` | one route and the slots of its block |
//! | `tables` | writing plans: block first, then the route flips to it |
//! | `cgroups` | which cgroups to attach to |
//! | `links` | attaching, swapping programs under live links, detaching |
//! | `sys` | the bpf(2) commands that aya does not have |
//! | `preflight` | what this kernel and these privileges allow, one by one |
//! | `others` | whose programs are on our hooks besides ours |
//! | `inspect` | the state from the pins alone, and removing them |

mod blocks;
mod cgroups;
mod error;
mod inspect;
mod links;
mod object;
mod others;
mod pins;
mod placed;
mod preflight;
mod shape;
mod status;
mod sys;
mod tables;

use std::{net::IpAddr, path::PathBuf, time::Duration};

pub use cgroups::{Cgroup, cgroup2_mount, cgroups};
pub use error::DatapathError;
pub use inspect::{PinnedStatus, Removed, inspect, unload};
pub use links::Attachment;
pub use others::{OtherProgram, others};
pub use preflight::{Check, Outcome, preflight};
pub use status::{BackendCounters, BackendStatus, ProgramStatus, RouteCounters, SetAside, Status, Suspect};

use crate::{
    plan::{Change, Plan},
    vip::Pool,
};

/// Where the datapath lives and which addresses are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder of the pins, in a bpf file system.
    pub bpffs: PathBuf,
    /// The virtual addresses.
    pub pool: Pool,
}

/// The loaded datapath. Dropping it leaves everything that is pinned in place and working.
pub struct Datapath {
    settings: Settings,
    object: object::Object,
    tables: tables::Tables,
    links: links::Links,
}

impl Datapath {
    /// Loads the programs, onto the tables that are pinned or onto new ones. Nothing is attached yet, and connects notice nothing.
    ///
    /// # Errors
    ///
    /// [`DatapathError::NotPermitted`] and [`DatapathError::Unsupported`] when this kernel or these privileges can't do it;
    /// [`DatapathError::OtherAbi`] and [`DatapathError::OtherPool`] when the pins were made for something else.
    pub fn open(settings: &Settings) -> Result<Self, DatapathError> {
        preflight::refuse_old_kernel()?;
        let pins = pins::Pins::new(&settings.bpffs);
        pins.prepare()?;
        shape::compare(&pins, &settings.pool)?;
        let mut object = object::Object::load(&settings.pool, Some(&pins))?;
        let tables = tables::Tables::open(&mut object, &settings.pool)?;
        Ok(Self { settings: settings.clone(), object, tables, links: links::Links::new(pins) })
    }

    /// Attaches to `cgroups`: links that are pinned already are swapped to the programs of this binary, atomically; new ones are made and
    /// pinned; links of cgroups that are not listed go. A cgroup that vanished meanwhile is no error.
    ///
    /// # Errors
    ///
    /// The first link that can't be made, by name and path. What was attached before it stays.
    pub fn attach(&mut self, cgroups: &[Cgroup]) -> Result<Vec<Attachment>, DatapathError> {
        self.links.attach(&mut self.object, cgroups)
    }

    /// What the tables hold now.
    pub fn plan(&self) -> Plan {
        self.tables.plan()
    }

    /// Carries out `changes`, in order. Each is live for the next connect when it is done.
    ///
    /// # Errors
    ///
    /// The first change that does not fit or that the kernel refuses; those before it stand.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), DatapathError> {
        changes.iter().try_for_each(|change| self.tables.apply(change))
    }

    /// The counters of the route at `index`. They outlive the agent and the route's changes.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the table.
    pub fn route_counters(&self, index: u32) -> Result<RouteCounters, DatapathError> {
        self.tables.route_counters(index)
    }

    /// The backends of the route at `index`, with health and counters. Empty for an index without a route.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a table.
    pub fn backends(&self, index: u32) -> Result<Vec<BackendStatus>, DatapathError> {
        self.tables.backends(index)
    }

    /// Every backend that has failed and not been seen working since: what a prober should knock at.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a table.
    pub fn set_aside(&self) -> Result<Vec<Suspect>, DatapathError> {
        self.tables.suspects()
    }

    /// Makes a backend eligible again, after a probe of it succeeded. An address that the route does not have any more is no error.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the table.
    pub fn reinstate(&mut self, index: u32, address: IpAddr) -> Result<(), DatapathError> {
        self.tables.reinstate(index, address)
    }

    /// How long a connect may wait for a backend that does not answer, where its route has another one to offer.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the table.
    pub fn set_connect_timeout(&mut self, timeout: Duration) -> Result<(), DatapathError> {
        self.tables.set_connect_timeout(timeout, sys::hz())
    }

    /// The agent's sign of life.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the table.
    pub fn beat(&mut self) -> Result<(), DatapathError> {
        self.tables.beat()
    }

    /// Programs, attachments and tables, for people and scripts.
    pub fn status(&self) -> Status {
        Status {
            abi: redirector_common::abi::ABI,
            pool: self.settings.pool.ipv4.to_string(),
            pool_ipv6: self.settings.pool.ipv6.map(|net| net.to_string()),
            programs: self.object.programs(),
            attachments: self.links.attachments(),
            routes: self.tables.len(),
            heartbeat_age: Some(Duration::ZERO),
        }
    }
}
