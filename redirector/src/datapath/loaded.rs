//! The loaded datapath.

use std::{net::IpAddr, time::Duration};

use tracing::{debug, warn};

use crate::{
    datapath::{
        attach::{
            cgroups::Cgroup,
            links::{AttachOutcome, Links},
        },
        checks::{debug_log::Missing, kernel},
        error::DatapathError,
        events::EventReader,
        load::{
            decision_log::DecisionLog,
            object::{Build, Object},
        },
        maps::{
            agent_maps::AgentMaps,
            resolver_slots::{
                InterceptScope, InterceptionStatus, ResolverLookup, ResolverSlots, ShimEndpoint,
            },
        },
        pins::{compat, layout::Pins, upgrade::Predecessor, version::Version},
        settings::Settings,
        status::{Attachment, BackendStatus, RouteCounters, RouteStatus, Status, UnhealthyBackend},
        sys,
    },
    plan::{Change, Plan, PlannedRoute},
};

/// The loaded datapath. Dropping it leaves everything that is pinned in place and working.
pub struct Datapath {
    settings: Settings,
    abi: u32,
    object: Object,
    maps: AgentMaps,
    resolver_slots: ResolverSlots,
    links: Links,
    lacks_routes: bool,
    upgraded_from: Option<u32>,
    events: Option<EventReader>,
    decision_log: Option<DecisionLog>,
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
    /// privileges can't do it; [`DatapathError::AbiMismatch`] for a younger version's pins,
    /// [`DatapathError::PoolMismatch`] for those of another pool.
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
        pins.refuse_newer_version()?;
        let mut predecessor = None;
        match pins.older().pop() {
            Some(old) if !pins.exist()? => {
                pins = pins.stage()?;
                predecessor = Some(Predecessor::prepare(&pins, old, &settings.pool, version)?);
            }
            _ => pins.create_dirs()?,
        }
        compat::compare(&pins, &settings.pool, version)?;
        let (mut object, decision_log) = load(settings, version, &pins)?;
        let maps = AgentMaps::open(&mut object, &settings.pool, version, predecessor.as_ref())?;
        let resolver_slots = ResolverSlots::open(&mut object)?;
        debug!(abi = version.abi, "ready to attach");
        let events = Some(EventReader::new(object.ring(redirector_common::names::EVENTS)?));
        let upgraded_from = predecessor.as_ref().map(Predecessor::abi);
        let lacks_routes = predecessor.is_some_and(|predecessor| !predecessor.can_read_routes());
        Ok(Self {
            settings: settings.clone(),
            abi: version.abi,
            object,
            maps,
            resolver_slots,
            links: Links::new(pins),
            lacks_routes,
            upgraded_from,
            events,
            decision_log,
        })
    }

    /// The version of the older tables that this one goes on from, when it has found such.
    pub fn upgraded_from(&self) -> Option<u32> {
        self.upgraded_from
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
        match self.attach_each(cgroups, usize::MAX)?.failures.into_iter().next() {
            Some(failure) => Err(failure.error),
            None => Ok(self.attachments()),
        }
    }

    /// As [`Datapath::attach`], to `limit` new cgroups at a time; tells which of them could not be
    /// attached to, each with the reason.
    ///
    /// # Errors
    ///
    /// When links that are not wanted can't be removed, or an upgrade can't be committed.
    pub fn attach_each(
        &mut self,
        cgroups: &[Cgroup],
        limit: usize,
    ) -> Result<AttachOutcome, DatapathError> {
        // Whoever attaches has the plan in the tables; what fails is tried again.
        self.lacks_routes = false;
        self.links.attach(&mut self.object, cgroups, limit)
    }

    /// The cgroups whose sockets are redirected.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.links.attachments()
    }

    /// Cgroups that are gone and have open sockets left, which are followed to their end. A later
    /// [`Datapath::attach`] finds out when they are.
    pub fn draining(&self) -> usize {
        self.links.draining()
    }

    /// What the tables hold now.
    pub fn plan(&self) -> Plan {
        self.maps.plan()
    }

    /// What the tables hold for the VIP at `index` now.
    pub fn planned(&self, index: u32) -> Option<PlannedRoute> {
        self.maps.planned(index)
    }

    /// Whether the tables hold a route for the VIP at `index`.
    pub fn has_route(&self, index: u32) -> bool {
        self.maps.has_route(index)
    }

    /// Carries out `changes`, in order; they are live for the next connect when this returns. Many
    /// are written together, and each becomes live by one store of its own: no connect sees a route
    /// in part.
    ///
    /// # Errors
    ///
    /// The first change that does not fit or that the kernel refuses; those before it stand.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), DatapathError> {
        self.maps.apply(changes)
    }

    /// The counters of the route at `index`. They outlive the agent and the route's changes.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the table.
    pub fn route_counters(&self, index: u32) -> Result<RouteCounters, DatapathError> {
        self.maps.route_counters(index)
    }

    /// The backends of the route at `index`, with health and counters. Empty for an index without a
    /// route.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a table.
    pub fn backends(&self, index: u32) -> Result<Vec<BackendStatus>, DatapathError> {
        self.maps.backends(index)
    }

    /// Counters and backends of the routes at `indices`, which ascend: a few calls for all of them
    /// where the kernel has `BPF_MAP_LOOKUP_BATCH` (5.6).
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a table.
    pub fn routes(&self, indices: &[u32]) -> Result<Vec<RouteStatus>, DatapathError> {
        self.maps.routes(indices)
    }

    /// Every backend that has failed and not been seen working since: what a prober should knock
    /// at.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a table.
    pub fn unhealthy_backends(&mut self) -> Result<Vec<UnhealthyBackend>, DatapathError> {
        self.maps.unhealthy_backends()
    }

    /// Makes a backend eligible again, after a probe of it succeeded. An address that the route
    /// does not have any more is no error.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the table.
    pub fn reinstate(&mut self, index: u32, address: IpAddr) -> Result<(), DatapathError> {
        self.maps.reinstate(index, address)
    }

    /// Keeps a backend that has failed set aside for `time` from now at least, since somebody
    /// probes it. One that has been seen working meanwhile stays eligible, and an address that the
    /// route does not have any more is no error.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read or write the table.
    pub fn extend_ejection(
        &mut self,
        index: u32,
        address: IpAddr,
        time: Duration,
    ) -> Result<(), DatapathError> {
        self.maps.extend_ejection(index, address, time)
    }

    /// How long a connect may wait for a backend that does not answer, where its route has another
    /// one to offer.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the table.
    pub fn set_connect_timeout(&mut self, timeout: Duration) -> Result<(), DatapathError> {
        self.maps.set_connect_timeout(timeout, sys::hz())
    }

    /// The reading end of the events; nothing after the first call. What happened while nobody read
    /// is there, as far as the ring took it.
    pub fn take_event_reader(&mut self) -> Option<EventReader> {
        self.events.take()
    }

    /// The log of the programs; nothing after the first call, or when the programs don't log. They
    /// do if [`Settings::debug_log`] asks for it and this host can run them.
    pub fn take_decision_log(&mut self) -> Option<DecisionLog> {
        self.decision_log.take()
    }

    /// Whether the programs tell events, and how many successes one of them stands for: `None`, or
    /// the power of two. Connects that are under way stay as they began.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the table.
    pub fn set_event_sampling(&mut self, sampling: Option<u8>) -> Result<(), DatapathError> {
        self.maps.set_event_sampling(sampling)
    }

    /// Events that the full ring has not taken since the tables were made.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the table.
    pub fn lost_events(&self) -> Result<u64, DatapathError> {
        self.maps.lost_events()
    }

    /// Where the shim listens. Nothing is intercepted until [`Datapath::intercept`] says so.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the table.
    pub fn set_shim(&mut self, shim: &ShimEndpoint) -> Result<(), DatapathError> {
        self.resolver_slots.set_shim(shim)
    }

    /// Whose DNS goes to the shim, from the next query on, and while [`Datapath::heartbeat`] is called
    /// often enough.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write a table, or [`DatapathError::Full`] for more resolvers than
    /// there are slots.
    pub fn intercept(&mut self, scope: &InterceptScope) -> Result<(), DatapathError> {
        self.resolver_slots.intercept(scope)
    }

    /// Which resolver a port of the shim's stands for; usable from any thread.
    pub fn resolver_lookup(&self) -> ResolverLookup {
        self.resolver_slots.resolver_lookup()
    }

    /// Frees the slots of resolvers that nobody has asked for a while, when few are left. To be
    /// called now and then.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read or write a table.
    pub fn release_idle_resolvers(&mut self) -> Result<(), DatapathError> {
        self.resolver_slots.release_idle()
    }

    /// What is intercepted, and what became of it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a table.
    pub fn interception(&self) -> Result<InterceptionStatus, DatapathError> {
        self.resolver_slots.status()
    }

    /// The agent's sign of life.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the table.
    pub fn heartbeat(&mut self) -> Result<(), DatapathError> {
        self.maps.heartbeat()
    }

    /// Programs, attachments and tables, for people and scripts.
    pub fn status(&self) -> Status {
        Status {
            abi: self.abi,
            pool: self.settings.pool.ipv4.to_string(),
            pool_ipv6: self.settings.pool.ipv6.map(|net| net.to_string()),
            programs: self.object.programs(),
            attachments: self.links.attachments(),
            routes: self.maps.len(),
            heartbeat_age: Some(Duration::ZERO),
        }
    }
}

/// Refuses a kernel that the programs are not written for, before anything is made in it.
fn refuse_old_kernel() -> Result<(), DatapathError> {
    kernel::unsupported_release().map_or(Ok(()), |release| {
        Err(DatapathError::KernelTooOld { release, oldest: kernel::OLDEST })
    })
}

/// Loads the programs: those that log if `settings` ask for them and the kernel accepts them.
fn load(
    settings: &Settings,
    version: &Version,
    pins: &Pins,
) -> Result<(Object, Option<DecisionLog>), DatapathError> {
    if settings.debug_log {
        match Object::load(Build::Logging, &settings.pool, version, Some(pins)) {
            Ok(mut object) => {
                let log = object.decision_log()?;
                return Ok((object, Some(log)));
            }
            Err(error) => {
                let Missing { cause, remedy } = Missing::from(error);
                warn!("the programs will not log their decisions: {cause}; {remedy}");
            }
        }
    }
    Object::load(Build::Plain, &settings.pool, version, Some(pins)).map(|object| (object, None))
}
