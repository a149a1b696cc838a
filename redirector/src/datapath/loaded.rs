//! The loaded datapath.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    time::Duration,
};

use aya::maps::MapInfo;
use ipnet::IpNet;
use redirector_common::{names, packet::stats::PacketStats, stats::RouteCounters};
use tracing::{debug, warn};

use crate::{
    datapath::{
        attach::{
            hierarchy::Cgroup,
            interfaces::{
                attacher::Interfaces,
                target::{
                    InterfaceAttachment, InterfaceFailure, InterfaceFinding, InterfaceTarget,
                },
            },
            links::{AttachOutcome, Links},
        },
        checks::{debug_log::LoggingRefused, kernel},
        error::DatapathError,
        events::EventReader,
        load::{
            decision_log::DecisionLog,
            object::{Build, Object},
        },
        maps::{
            agent_maps::AgentMaps,
            flow_counts::{self, FlowCounts},
            flow_expiry::FlowExpiry,
            health_words::RouteBackend,
            name_cgroups::NameCgroup,
            name_maps::NameMaps,
            published_names::{NameChange, PublishedName},
            resolvers::{InterceptionStatus, MAX_RESOLVERS, Resolvers, ShimEndpoint},
            route_maps::RouteMaps,
        },
        pins::{
            compat,
            layout::Pins,
            upgrade::{self, Predecessor},
            version::Version,
        },
        settings::Settings,
        status::{Attachment, BackendStatus, RouteStatus, Status, UnhealthyBackend},
        sys::{self, monotonic_ns},
    },
    plan::{Change, Plan, PlannedRoute},
    pool::Pool,
    route::SourceName,
};

/// The loaded datapath. Dropping it leaves everything that is pinned in place, and the programs
/// keep redirecting.
pub struct Datapath {
    settings: Settings,
    abi: u32,
    object: Object,
    maps: AgentMaps,
    resolvers: Resolvers,
    names: NameMaps,
    links: Links,
    interfaces: Interfaces,
    flow_expiry: FlowExpiry,
    lacks_routes: bool,
    upgraded_from: Option<u32>,
    events: Option<EventReader>,
    decision_log: Option<DecisionLog>,
}

/// Programs that are loaded with the maps of a running agent, which they do not change: the part of
/// [`Datapath::open`] that takes seconds.
pub struct Preloaded {
    settings: Settings,
    object: Object,
    decision_log: Option<DecisionLog>,
}

impl Preloaded {
    /// Loads the programs; none if the maps must be created or upgraded.
    ///
    /// # Errors
    ///
    /// As [`Datapath::open`].
    pub fn load(settings: &Settings) -> Result<Option<Self>, DatapathError> {
        refuse_old_kernel()?;
        let version = Version::own();
        let pins = Pins::for_version(&settings.bpffs, version.abi);
        pins.refuse_newer_version()?;
        let is_replaced = upgrade::replaced(&pins, &settings.pool)?.is_some();
        if !pins.exist()? || !pins.older().is_empty() || is_replaced {
            return Ok(None);
        }
        compat::compare(&pins, &settings.pool, &version)?;
        let (object, decision_log) = load(settings, &version, &pins)?;
        Ok(Some(Self { settings: settings.clone(), object, decision_log }))
    }

    /// The VIPs, by index, whose routes the maps have now; none if [`Datapath::open_preloaded`]
    /// with these settings would load the programs again.
    ///
    /// # Errors
    ///
    /// If the map of routes cannot be read.
    pub fn installed(&self, settings: &Settings) -> Result<Option<BTreeSet<u32>>, DatapathError> {
        let pins = Pins::for_version(&settings.bpffs, Version::own().abi);
        if !self.fits(settings, &pins) {
            return Ok(None);
        }
        let present = RouteMaps::open(&pins)?.present(settings.pool.size())?;
        Ok(Some(present.into_iter().map(|(index, _)| index).collect()))
    }

    /// Whether these settings and the maps that are pinned now are those of the programs.
    fn fits(&self, settings: &Settings, pins: &Pins) -> bool {
        let pinned = MapInfo::from_pin(pins.map(names::AGENT)).ok().map(|info| info.id());
        pinned.is_some() && self.object.map_id(names::AGENT) == pinned && self.settings == *settings
    }
}

impl Datapath {
    /// Loads the programs with the pinned maps, or with new ones. Nothing is attached yet, and
    /// connects are not affected.
    ///
    /// Upgrades an older version's pins: maps with the same layout and meaning are shared, the
    /// others are created. The older programs serve until [`Datapath::attach`]. Pins of another
    /// pool are replaced in the same way, and share nothing.
    ///
    /// # Errors
    ///
    /// [`DatapathError::NotPermitted`] and [`DatapathError::Unsupported`] if this kernel or these
    /// privileges can't do it, [`DatapathError::AbiMismatch`] for a newer version's pins.
    pub fn open(settings: &Settings) -> Result<Self, DatapathError> {
        Self::open_as(settings, &Version::own())
    }

    /// As [`Datapath::open`], without loading the programs again if they fit.
    ///
    /// # Errors
    ///
    /// As [`Datapath::open`].
    pub fn open_preloaded(
        settings: &Settings,
        preloaded: Option<Preloaded>,
    ) -> Result<Self, DatapathError> {
        Self::open_with(settings, &Version::own(), preloaded)
    }

    /// As [`Datapath::open`], with the maps of another version of this binary.
    ///
    /// # Errors
    ///
    /// As [`Datapath::open`].
    #[doc(hidden)]
    pub fn open_as(settings: &Settings, version: &Version) -> Result<Self, DatapathError> {
        Self::open_with(settings, version, None)
    }

    fn open_with(
        settings: &Settings,
        version: &Version,
        preloaded: Option<Preloaded>,
    ) -> Result<Self, DatapathError> {
        refuse_old_kernel()?;
        let mut pins = Pins::for_version(&settings.bpffs, version.abi);
        pins.refuse_newer_version()?;
        let mut predecessor = None;
        pins.recover()?;
        match upgrade::replaced(&pins, &settings.pool)? {
            Some(old) => {
                pins = pins.stage()?;
                predecessor = Some(Predecessor::prepare(&pins, old, &settings.pool, version)?);
            }
            None => pins.create_dirs()?,
        }
        let (mut object, decision_log) =
            match preloaded.filter(|preloaded| preloaded.fits(settings, &pins)) {
                // They were compared when the programs were loaded with them.
                Some(Preloaded { object, decision_log, .. }) => (object, decision_log),
                None => {
                    compat::compare(&pins, &settings.pool, version)?;
                    load(settings, version, &pins)?
                }
            };
        object.link();
        let maps = AgentMaps::open(&mut object, &settings.pool, version, predecessor.as_ref())?;
        let resolvers = Resolvers::open(&mut object)?;
        let name_maps = NameMaps::open(&mut object)?;
        let interfaces = Interfaces::open(&mut object)?;
        let flow_expiry = FlowExpiry::from_object(&mut object)?;
        debug!(abi = version.abi, "ready to attach");
        let events = Some(EventReader::new(object.ring(names::EVENTS)?));
        let upgraded_from =
            predecessor.as_ref().map(Predecessor::abi).filter(|abi| *abi != version.abi);
        let lacks_routes = predecessor.is_some_and(|predecessor| !predecessor.can_read_routes());
        Ok(Self {
            settings: settings.clone(),
            abi: version.abi,
            object,
            maps,
            resolvers,
            names: name_maps,
            links: Links::new(pins, &settings.pool),
            interfaces,
            flow_expiry,
            lacks_routes,
            upgraded_from,
            events,
            decision_log,
        })
    }

    /// The older version whose maps were upgraded, if there were any.
    pub fn upgraded_from(&self) -> Option<u32> {
        self.upgraded_from
    }

    /// Whether older programs serve routes that this binary could not read. Then the plan must be
    /// applied before [`Datapath::attach`]; until then the older programs keep serving.
    pub fn lacks_routes(&self) -> bool {
        self.lacks_routes
    }

    /// Attaches to `cgroups`: pinned links are swapped to the programs of this binary, atomically;
    /// new links are created and pinned; links of cgroups that are not listed are removed. A cgroup
    /// that was removed meanwhile is no error; its links are removed with its last socket. An older
    /// version's links are swapped too, and its remaining pins are removed last.
    ///
    /// # Errors
    ///
    /// The first link that can't be created, by program and path. The others are attached.
    pub fn attach(&mut self, cgroups: &[Cgroup]) -> Result<Vec<Attachment>, DatapathError> {
        match self.attach_each(cgroups, usize::MAX)?.failures.into_iter().next() {
            Some(failure) => Err(failure.error),
            None => Ok(self.attachments()),
        }
    }

    /// As [`Datapath::attach`], to at most `limit` new cgroups; returns those that failed, each
    /// with the reason.
    ///
    /// # Errors
    ///
    /// If unlisted links can't be removed, or an upgrade can't be committed.
    pub fn attach_each(
        &mut self,
        cgroups: &[Cgroup],
        limit: usize,
    ) -> Result<AttachOutcome, DatapathError> {
        self.accept_plan();
        self.links.attach(&mut self.object, cgroups, limit)
    }

    /// The plan is applied, so the new programs may replace the older ones. The caller retries
    /// changes that failed.
    pub fn accept_plan(&mut self) {
        self.lacks_routes = false;
    }

    /// The pool of VIPs.
    pub fn pool(&self) -> &Pool {
        &self.settings.pool
    }

    /// The pools whose programs stay attached beside ours for clients that remember their VIPs.
    pub fn former_pools(&self) -> Vec<IpNet> {
        self.links.former_pools()
    }

    /// Removes the programs and maps of former pools that were in force `max_age` ago or earlier.
    /// Returns those pools.
    ///
    /// # Errors
    ///
    /// The first pin that can't be removed.
    pub fn retire_former_pools(&mut self, max_age: Duration) -> Result<Vec<IpNet>, DatapathError> {
        self.links.retire(max_age)
    }

    /// The cgroups whose sockets are redirected.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.links.attachments()
    }

    /// The number of removed cgroups that still have open sockets. A later [`Datapath::attach`]
    /// detects when the last socket is closed.
    pub fn draining(&self) -> usize {
        self.links.draining()
    }

    /// Attaches to cgroups again, and pins again, what another process has detached or removed. The
    /// agent holds everything, so that a removed pin or an unmounted bpf file system detaches
    /// nothing. Interfaces are restored by [`Datapath::check_interfaces`].
    ///
    /// # Errors
    ///
    /// The first thing that can't be restored.
    pub fn heal(&mut self) -> Result<Vec<String>, DatapathError> {
        self.links.heal(&mut self.object)
    }

    /// Whether the bpf file system of the pins is gone: what is in force ends with this process.
    pub fn pins_are_lost(&self) -> bool {
        self.links.pins_are_lost()
    }

    /// The directory of the pins.
    pub fn bpffs(&self) -> &Path {
        &self.settings.bpffs
    }

    /// Why this kernel refused the packet programs; none if they are loaded. Without them nothing
    /// can be attached to interfaces, and everything else works.
    pub fn packet_error(&self) -> Option<&DatapathError> {
        self.object.packet_error()
    }

    /// Attaches to `targets`: programs that are pinned there are swapped to those of this binary,
    /// others are attached in front of foreign ones. A guest's interface gets both programs or
    /// none. Returns those that failed; an interface that is gone by now is no failure. Call it
    /// after [`Datapath::attach`].
    ///
    /// # Errors
    ///
    /// [`Datapath::packet_error`], or if an upgrade can't be committed.
    pub fn attach_interfaces(
        &mut self,
        targets: &[InterfaceTarget],
    ) -> Result<Vec<InterfaceFailure>, DatapathError> {
        if let Some(error) = self.object.packet_error() {
            return Err(DatapathError::NoPacketPrograms { cause: error.to_string() });
        }
        self.links.commit()?;
        let failures = self.interfaces.attach(&mut self.object, self.links.versions(), targets);
        self.links.remove_older()?;
        Ok(failures)
    }

    /// Detaches from the interfaces with these indices, which may be gone; those without our
    /// programs are no error. Returns the number of programs removed.
    ///
    /// # Errors
    ///
    /// The first that can't be removed.
    pub fn detach_interfaces(&mut self, indices: &[u32]) -> Result<usize, DatapathError> {
        let removed = self.interfaces.detach(self.links.versions(), indices)?;
        self.flow_expiry.end_rest();
        self.links.remove_older()?;
        Ok(removed)
    }

    /// The interfaces with our programs that this or an earlier agent attached to, in ascending
    /// order. The caller detaches those that it does not want.
    ///
    /// # Errors
    ///
    /// If it is unknown which they are.
    pub fn pinned_interfaces(&self) -> Result<Vec<u32>, DatapathError> {
        let versions = self.links.versions();
        let all = std::iter::once(versions.ours).chain(versions.older);
        let mut indices = all.map(Pins::interfaces).collect::<Result<Vec<_>, _>>()?.concat();
        indices.sort_unstable();
        indices.dedup();
        Ok(indices)
    }

    /// The interfaces that this agent attached to.
    pub fn interface_attachments(&self) -> Vec<InterfaceAttachment> {
        self.interfaces.attachments()
    }

    /// The flows of guests, by the index of their interface; interfaces without one so far are left
    /// out.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to open or read a map.
    pub fn flow_counts(&self) -> Result<BTreeMap<u32, FlowCounts>, DatapathError> {
        flow_counts::read(self.links.versions().ours)
    }

    /// Checks whether our programs still run first on their hooks, on up to `limit` interfaces,
    /// beginning after the one that was checked last; attaches those again that are gone or behind
    /// another program. Returns what is new.
    ///
    /// # Errors
    ///
    /// If the programs of an interface can't be listed or attached again.
    pub fn check_interfaces(
        &mut self,
        limit: usize,
    ) -> Result<Vec<InterfaceFinding>, DatapathError> {
        self.interfaces.check(&mut self.object, self.links.versions().ours, limit)
    }

    /// Removes established flows of guests that are idle for three hours, and flows of interfaces
    /// that are gone. Each call considers up to 4,096 entries of the map; a walk through all
    /// of them begins once a minute, and after interfaces were detached.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to read or write a map.
    pub fn expire_flows(&mut self) -> Result<(), DatapathError> {
        let now_ns = monotonic_ns();
        if self.flow_expiry.rests(now_ns) {
            return Ok(());
        }
        // At the start, most interfaces are known by their pins only.
        let pinned = self.pinned_interfaces()?.into_iter().map(|index| (index, 0));
        let guests = pinned.chain(self.interfaces.guests()).collect();
        let expired = self.flow_expiry.step(&guests, now_ns)?;
        let mut of_routes = expired.by_route.into_iter();
        of_routes.try_for_each(|(index, flows)| self.maps.count_expired(index, flows))?;
        let mut of_guests = expired.by_guest.into_iter();
        of_guests.try_for_each(|(index, flows)| self.interfaces.count_expired(index, flows))
    }

    /// Attaches by clsact although this kernel has TCX: what older kernels do.
    #[doc(hidden)]
    pub fn force_clsact(&mut self) {
        self.interfaces.force_clsact();
    }

    /// The routes in the maps.
    pub fn plan(&self) -> Plan {
        self.maps.plan()
    }

    /// The route in the maps for the VIP at `index`.
    pub fn planned(&self, index: u32) -> Option<PlannedRoute> {
        self.maps.planned(index)
    }

    /// Whether the maps hold a route for the VIP at `index`.
    pub fn has_route(&self, index: u32) -> bool {
        self.maps.has_route(index)
    }

    /// Applies `changes` in order; they are in effect for the next connect when this returns. Many
    /// are written in one batch, but each takes effect by a single store: no connect sees part of a
    /// route.
    ///
    /// # Errors
    ///
    /// The first change that does not fit or that the kernel refuses; those before it stay.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), DatapathError> {
        self.maps.apply(changes)
    }

    /// The counters of the route at `index`. They outlive the agent and the route's changes.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to read the map.
    pub fn route_counters(&self, index: u32) -> Result<RouteCounters, DatapathError> {
        self.maps.route_counters(index)
    }

    /// The backends of the route at `index`, with health and counters. Empty for an index without a
    /// route.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to read a map.
    pub fn backends(&self, index: u32) -> Result<Vec<BackendStatus>, DatapathError> {
        self.maps.backends(index)
    }

    /// Counters and backends of the routes at `indices`, which must ascend: a few system calls for
    /// all of them if the kernel has `BPF_MAP_LOOKUP_BATCH` (5.6).
    ///
    /// # Errors
    ///
    /// If the kernel refuses to read a map.
    pub fn routes(&self, indices: &[u32]) -> Result<Vec<RouteStatus>, DatapathError> {
        self.maps.routes(indices)
    }

    /// The backends that a prober should probe: those that failed and have had no success since.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to read a map.
    pub fn unhealthy_backends(&mut self) -> Result<Vec<UnhealthyBackend>, DatapathError> {
        self.maps.unhealthy_backends()
    }

    /// Ends the ejection of a backend at a port after a successful probe. Its failures stay until a
    /// connect succeeds. An address that is no longer a backend is no error.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to write the map.
    pub fn reinstate(&mut self, at: RouteBackend) -> Result<(), DatapathError> {
        self.maps.reinstate(at)
    }

    /// Ejects a backend for all after a probe that failed and `took` this long, if a connect has
    /// failed at this port shortly before and none was accepted meanwhile.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to read or write the map.
    pub fn agree_on_failure(
        &mut self,
        at: RouteBackend,
        took: Duration,
    ) -> Result<(), DatapathError> {
        self.maps.agree_on_failure(at, took)
    }

    /// Keeps a failed backend ejected for at least `time` from now, since a prober decides when it
    /// is used again. A backend that has had a success meanwhile stays eligible, and an address
    /// that is no longer a backend is no error.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to read or write the map.
    pub fn extend_ejection(
        &mut self,
        at: RouteBackend,
        time: Duration,
    ) -> Result<(), DatapathError> {
        self.maps.extend_ejection(at, time)
    }

    /// Sets how long a connect may wait for a backend that does not answer, if its route has
    /// another.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to write the map.
    pub fn set_connect_timeout(&mut self, timeout: Duration) -> Result<(), DatapathError> {
        self.maps.set_connect_timeout(timeout, sys::hz())
    }

    /// Sets whether a backend is ejected that accepts connects and resets the connections before a
    /// byte arrives.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to write the map.
    pub fn set_eject_on_reset(&mut self, eject: bool) -> Result<(), DatapathError> {
        self.maps.set_eject_on_reset(eject)
    }

    /// The reading end of the events; `None` after the first call. Earlier events are still there,
    /// as far as the ring buffer could hold them.
    pub fn take_event_reader(&mut self) -> Option<EventReader> {
        self.events.take()
    }

    /// The log of the programs; `None` after the first call, or if the programs don't log. They log
    /// if [`Settings::debug_log`] is set and the kernel accepts the logging programs.
    pub fn take_decision_log(&mut self) -> Option<DecisionLog> {
        self.decision_log.take()
    }

    /// Switches events: off for `None`, else one in 2^`sampling` successes and all failures.
    /// Connects in progress keep the setting that they began with.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to write the map.
    pub fn set_event_sampling(&mut self, sampling: Option<u8>) -> Result<(), DatapathError> {
        self.maps.set_event_sampling(sampling)
    }

    /// The number of events lost to a full ring buffer since the maps were created.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to read the map.
    pub fn lost_events(&self) -> Result<u64, DatapathError> {
        self.maps.lost_events()
    }

    /// The number of failures that were not reported since their client had too many, since the
    /// maps were created.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to read the map.
    pub fn suppressed_events(&self) -> Result<u64, DatapathError> {
        self.maps.suppressed_events()
    }

    /// Gives each resolver whose DNS is intercepted at sockets a slot, its former one if it had
    /// one. A change ends the interception. Returns the resolver of each slot.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to write a map; [`DatapathError::Full`] if there are more resolvers
    /// than slots.
    pub fn list_resolvers(
        &mut self,
        listed: &[IpAddr],
    ) -> Result<[Option<IpAddr>; MAX_RESOLVERS], DatapathError> {
        self.resolvers.list(listed)
    }

    /// Sets where the shim listens. After a change nothing is intercepted until
    /// [`Datapath::intercept`].
    ///
    /// # Errors
    ///
    /// If the kernel refuses to write the map.
    pub fn set_shim(&mut self, shim: &ShimEndpoint) -> Result<(), DatapathError> {
        self.resolvers.set_shim(shim)
    }

    /// Whether DNS queries to the listed resolvers go to the shim, from the next query on and as
    /// long as [`Datapath::heartbeat`] is called often enough.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to write the map.
    pub fn intercept(&mut self, enabled: bool) -> Result<(), DatapathError> {
        self.resolvers.set_enabled(enabled)
    }

    /// The resolvers that are intercepted, with their counters.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to read a map.
    pub fn interception(&self) -> Result<InterceptionStatus, DatapathError> {
        self.resolvers.status()
    }

    /// The names that are answered by packet: after [`Datapath::open`], those that an earlier agent
    /// left.
    pub fn names(&self) -> &BTreeMap<SourceName, PublishedName> {
        self.names.names()
    }

    /// How many of the names have a backend.
    pub fn live_names(&self) -> usize {
        self.names.live()
    }

    /// Changes the names that are answered by packet, in order; the changes are in effect for the
    /// next query when this returns. New names are written in batches. A name must be put after its
    /// route, and removed before it.
    ///
    /// # Errors
    ///
    /// The first change that the kernel refuses; those before it stay.
    pub fn publish_names(&mut self, changes: &[NameChange]) -> Result<(), DatapathError> {
        self.names.publish(changes)
    }

    /// Sets the TTL of the answers in seconds, and whether names are answered by packet at all. New
    /// tables are off.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to write the map.
    pub fn set_name_settings(&mut self, ttl: u32, enabled: bool) -> Result<(), DatapathError> {
        self.names.set_settings(ttl, enabled)
    }

    /// Whether names are answered by packet.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to read the map.
    pub fn answers_names(&self) -> Result<bool, DatapathError> {
        self.names.is_enabled()
    }

    /// Sets the cgroups whose sockets on the host's own network get answers by packet, with those
    /// of the cgroups below them. Cgroups deeper than [`MAX_CGROUP_LEVEL`] get none.
    ///
    /// [`MAX_CGROUP_LEVEL`]: super::MAX_CGROUP_LEVEL
    ///
    /// # Errors
    ///
    /// If the kernel refuses to write a map.
    pub fn set_name_cgroups(&mut self, cgroups: &[NameCgroup]) -> Result<(), DatapathError> {
        self.names.set_cgroups(cgroups)
    }

    /// The number of queries for the source of the VIP at `index` that were answered by packet. It
    /// outlives the agent and the name.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to read the map.
    pub fn name_answers(&self, index: u32) -> Result<u64, DatapathError> {
        self.names.answers(index)
    }

    /// As [`Datapath::name_answers`], of the VIPs at `indices`, which must ascend.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to read the map.
    pub fn answers_of(&self, indices: &[u32]) -> Result<Vec<u64>, DatapathError> {
        self.names.answers_of(indices)
    }

    /// The counters of the packet datapath.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to read the map.
    pub fn packet_stats(&self) -> Result<PacketStats, DatapathError> {
        self.names.stats()
    }

    /// Writes the agent's heartbeat.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to write the map.
    pub fn heartbeat(&mut self) -> Result<(), DatapathError> {
        self.maps.heartbeat()
    }

    /// Programs, attachments and maps.
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

/// Refuses a kernel that is too old for the programs, before anything is created in it.
fn refuse_old_kernel() -> Result<(), DatapathError> {
    kernel::unsupported_release().map_or(Ok(()), |release| {
        Err(DatapathError::KernelTooOld { release, oldest: kernel::OLDEST })
    })
}

/// Loads the programs: those that log if `settings` ask for them and the kernel accepts them.
/// [`Object::link`] has to follow.
fn load(
    settings: &Settings,
    version: &Version,
    pins: &Pins,
) -> Result<(Object, Option<DecisionLog>), DatapathError> {
    if settings.debug_log {
        match Object::load_only(Build::Logging, &settings.pool, version, Some(pins)) {
            Ok(mut object) => {
                let log = object.decision_log()?;
                return Ok((object, Some(log)));
            }
            Err(error) => {
                let LoggingRefused { cause, remedy } = LoggingRefused::from(error);
                warn!("the programs will not log their decisions: {cause}; {remedy}");
            }
        }
    }
    let object = Object::load_only(Build::Plain, &settings.pool, version, Some(pins))?;
    Ok((object, None))
}
