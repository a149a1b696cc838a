//! The loaded datapath.

use std::{net::IpAddr, time::Duration};

use tracing::debug;

use crate::{
    datapath::{
        attach::{
            cgroups::Cgroup,
            links::{Attaching, Links},
        },
        checks::kernel,
        error::DatapathError,
        events::EventReader,
        load::object::Object,
        maps::{
            resolver_slots::{Intercepted, Interception, InterceptionStatus, ResolverOf, ShimAt},
            tables::Tables,
        },
        pins::{compat, folder::Pins, upgrade::Predecessor, version::Version},
        settings::Settings,
        status::{Attachment, BackendStatus, RouteCounters, RouteStatus, Status, Suspect},
        sys,
    },
    plan::{Change, Plan, PlannedRoute},
};

/// The loaded datapath. Dropping it leaves everything that is pinned in place and working.
pub struct Datapath {
    settings: Settings,
    abi: u32,
    object: Object,
    tables: Tables,
    interception: Interception,
    links: Links,
    lacks_routes: bool,
    taken_over_from: Option<u32>,
    events: Option<EventReader>,
}

impl Datapath {
    /// Loads the programs, onto the tables that are pinned or onto new ones. Nothing is attached
    /// yet, and connects notice nothing.
    ///
    /// An older version's pins are taken over: what means the same in this version is gone on with,
    /// the rest is made anew. They serve until [`Datapath::attach`].
    ///
    /// # Errors
    ///
    /// [`DatapathError::NotPermitted`] and [`DatapathError::Unsupported`] when this kernel or these
    /// privileges can't do it; [`DatapathError::OtherAbi`] for a younger version's pins,
    /// [`DatapathError::OtherPool`] for those of another pool.
    pub fn open(settings: &Settings) -> Result<Self, DatapathError> {
        Self::open_as(settings, &Version::own())
    }

    /// As [`Datapath::open`], in the part of a binary with other tables than this one's.
    ///
    /// # Errors
    ///
    /// As [`Datapath::open`].
    #[doc(hidden)]
    pub fn open_as(settings: &Settings, version: &Version) -> Result<Self, DatapathError> {
        refuse_old_kernel()?;
        let mut pins = Pins::of(&settings.bpffs, version.abi);
        pins.refuse_foreign()?;
        let mut predecessor = None;
        match pins.older().pop() {
            Some(old) if !pins.exist()? => {
                pins = pins.stage()?;
                predecessor = Some(Predecessor::prepare(&pins, old, &settings.pool, version)?);
            }
            _ => pins.make_folders()?,
        }
        compat::compare(&pins, &settings.pool, version)?;
        let mut object = Object::load(&settings.pool, version, Some(&pins))?;
        let tables = Tables::open(&mut object, &settings.pool, version, predecessor.as_ref())?;
        let interception = Interception::open(&mut object)?;
        debug!(abi = version.abi, "ready to attach");
        let events = Some(EventReader::new(object.ring(redirector_common::names::EVENTS)?));
        let taken_over_from = predecessor.as_ref().map(Predecessor::abi);
        let lacks_routes = predecessor.is_some_and(|predecessor| !predecessor.knows_routes());
        Ok(Self {
            settings: settings.clone(),
            abi: version.abi,
            object,
            tables,
            interception,
            links: Links::new(pins),
            lacks_routes,
            taken_over_from,
            events,
        })
    }

    /// The version of the older tables that this one goes on from, when it has found such.
    pub fn taken_over_from(&self) -> Option<u32> {
        self.taken_over_from
    }

    /// Whether older programs serve routes that these tables don't have, since this binary can't
    /// read them. Then attaching must wait until the plan is in the tables: until then those
    /// programs go on serving.
    pub fn lacks_routes(&self) -> bool {
        self.lacks_routes
    }

    /// Attaches to `cgroups`: links that are pinned already are swapped to the programs of this
    /// binary, atomically; new ones are made and pinned; links of cgroups that are not listed go. A
    /// cgroup that vanished meanwhile is no error; its links go with its last socket. An older
    /// version's links are taken over in the same way, and what else it has pinned is removed last.
    ///
    /// # Errors
    ///
    /// The first link that can't be made, by name and path. What else could be attached is.
    pub fn attach(&mut self, cgroups: &[Cgroup]) -> Result<Vec<Attachment>, DatapathError> {
        match self.attach_each(cgroups, usize::MAX)?.refused.into_iter().next() {
            Some(refused) => Err(refused.error),
            None => Ok(self.attachments()),
        }
    }

    /// As [`Datapath::attach`], to `most` new cgroups at a time; tells which of them could not be
    /// attached to, each with the reason.
    ///
    /// # Errors
    ///
    /// When links that are not wanted can't be removed, or an upgrade can't be committed.
    pub fn attach_each(
        &mut self,
        cgroups: &[Cgroup],
        most: usize,
    ) -> Result<Attaching, DatapathError> {
        // Whoever attaches has the plan in the tables; what fails is tried again.
        self.lacks_routes = false;
        self.links.attach(&mut self.object, cgroups, most)
    }

    /// The cgroups whose sockets are redirected.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.links.attachments()
    }

    /// Cgroups that are gone and have open sockets left, which are followed to their end. A later
    /// [`Datapath::attach`] finds out when they are.
    pub fn fading(&self) -> usize {
        self.links.fading()
    }

    /// What the tables hold now.
    pub fn plan(&self) -> Plan {
        self.tables.plan()
    }

    /// What the tables hold for the VIP at `index` now.
    pub fn planned(&self, index: u32) -> Option<PlannedRoute> {
        self.tables.planned(index)
    }

    /// Whether the tables hold a route for the VIP at `index`.
    pub fn has_route(&self, index: u32) -> bool {
        self.tables.has_route(index)
    }

    /// Carries out `changes`, in order; they are live for the next connect when this returns. Many
    /// are written together, and each becomes live by one store of its own: no connect sees a route
    /// in part.
    ///
    /// # Errors
    ///
    /// The first change that does not fit or that the kernel refuses; those before it stand.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), DatapathError> {
        self.tables.apply(changes)
    }

    /// The counters of the route at `index`. They outlive the agent and the route's changes.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the table.
    pub fn route_counters(&self, index: u32) -> Result<RouteCounters, DatapathError> {
        self.tables.route_counters(index)
    }

    /// The backends of the route at `index`, with health and counters. Empty for an index without a
    /// route.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a table.
    pub fn backends(&self, index: u32) -> Result<Vec<BackendStatus>, DatapathError> {
        self.tables.backends(index)
    }

    /// Counters and backends of the routes at `indices`, which ascend: a few calls for all of them
    /// where the kernel has `BPF_MAP_LOOKUP_BATCH` (5.6).
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a table.
    pub fn routes(&self, indices: &[u32]) -> Result<Vec<RouteStatus>, DatapathError> {
        self.tables.routes(indices)
    }

    /// Every backend that has failed and not been seen working since: what a prober should knock
    /// at.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a table.
    pub fn set_aside(&mut self) -> Result<Vec<Suspect>, DatapathError> {
        self.tables.suspects()
    }

    /// Makes a backend eligible again, after a probe of it succeeded. An address that the route
    /// does not have any more is no error.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the table.
    pub fn reinstate(&mut self, index: u32, address: IpAddr) -> Result<(), DatapathError> {
        self.tables.reinstate(index, address)
    }

    /// Keeps a backend that has failed set aside for `time` from now at least, since somebody
    /// probes it. One that has been seen working meanwhile stays eligible, and an address that the
    /// route does not have any more is no error.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read or write the table.
    pub fn hold(
        &mut self,
        index: u32,
        address: IpAddr,
        time: Duration,
    ) -> Result<(), DatapathError> {
        self.tables.hold(index, address, time)
    }

    /// How long a connect may wait for a backend that does not answer, where its route has another
    /// one to offer.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the table.
    pub fn set_connect_timeout(&mut self, timeout: Duration) -> Result<(), DatapathError> {
        self.tables.set_connect_timeout(timeout, sys::hz())
    }

    /// The reading end of the events; nothing after the first call. What happened while nobody read
    /// is there, as far as the ring took it.
    pub fn take_events(&mut self) -> Option<EventReader> {
        self.events.take()
    }

    /// Whether the programs tell events, and how many successes one of them stands for: `None`, or
    /// the power of two. Connects that are under way stay as they began.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the table.
    pub fn tell_events(&mut self, sampling: Option<u8>) -> Result<(), DatapathError> {
        self.tables.tell_events(sampling)
    }

    /// Events that the full ring has not taken since the tables were made.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the table.
    pub fn lost_events(&self) -> Result<u64, DatapathError> {
        self.tables.lost_events()
    }

    /// Where the shim listens. Nothing is intercepted until [`Datapath::intercept`] says so.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the table.
    pub fn set_shim(&mut self, at: &ShimAt) -> Result<(), DatapathError> {
        self.interception.set_shim(at)
    }

    /// Whose DNS goes to the shim, from the next query on, and while [`Datapath::beat`] is called
    /// often enough.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write a table, or [`DatapathError::Full`] for more resolvers than
    /// there are slots.
    pub fn intercept(&mut self, what: &Intercepted) -> Result<(), DatapathError> {
        self.interception.intercept(what)
    }

    /// Which resolver a port of the shim's stands for; usable from any thread.
    pub fn resolver_of(&self) -> ResolverOf {
        self.interception.resolver_of()
    }

    /// Frees the slots of resolvers that nobody has asked for a while, when few are left. To be
    /// called now and then.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read or write a table.
    pub fn free_idle_resolvers(&mut self) -> Result<(), DatapathError> {
        self.interception.free_idle()
    }

    /// What is intercepted, and what became of it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a table.
    pub fn interception(&self) -> Result<InterceptionStatus, DatapathError> {
        self.interception.status()
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
            abi: self.abi,
            pool: self.settings.pool.ipv4.to_string(),
            pool_ipv6: self.settings.pool.ipv6.map(|net| net.to_string()),
            programs: self.object.programs(),
            attachments: self.links.attachments(),
            routes: self.tables.len(),
            heartbeat_age: Some(Duration::ZERO),
        }
    }
}

/// Refuses a kernel that the programs are not written for, before anything is made in it.
fn refuse_old_kernel() -> Result<(), DatapathError> {
    kernel::old_kernel()
        .map_or(Ok(()), |release| Err(DatapathError::TooOld { release, oldest: kernel::OLDEST }))
}
