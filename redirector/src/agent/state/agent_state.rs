//! The agent's state: what the event loop changes, and what views show.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use tracing::{error, warn};

use crate::{
    agent::{
        attach::{
            interface_manager::InterfaceManager,
            manager::{AttachManager, Scope},
            pod_scope::PodScope,
        },
        events::feed::EventFeed,
        interception::Interception,
        process::lock::Locks,
        state::{
            cluster_routes::ClusterRoutes,
            config_state::ConfigState,
            former_pools::FormerPools,
            healing::{Healing, Part},
            host_check::HostCheck,
            packet_pressure::{PacketPressure, Pressure},
            reconciler::Reconciler,
        },
    },
    atomic_file::FileError,
    control::{HandOver, Successor, api::InterceptWay},
    datapath::DatapathError,
    error::error_chain,
    route::Edit,
    state::{Change, State as StateDir},
};

/// The most routes that the reasons for not being ready name.
const MAX_NAMED: usize = 100;

/// The agent's state. Each part has methods of its own; the methods here concern several parts.
pub(crate) struct AgentState {
    pub(crate) reconciler: Reconciler,
    pub(crate) attachments: AttachManager,
    pub(crate) interfaces: InterfaceManager,
    pub(crate) pods: PodScope,
    pub(crate) cluster_routes: ClusterRoutes,
    pub(crate) interception: Interception,
    pub(crate) events: EventFeed,
    pub(crate) config: ConfigState,
    state_dir: StateDir,
    /// Damage found in the state files.
    warnings: Vec<String>,
    /// Why the state files could not be written the last time.
    storage_error: Option<String>,
    /// The directories, which are restored if they are removed.
    locks: Arc<Mutex<Locks>>,
    /// Where DNS is answered.
    listen: Vec<SocketAddr>,
    hand_over: HandOver,
    started_at: Timestamp,
    heartbeat_at: Instant,
    change_counts: BTreeMap<String, u64>,
    packet_pressure: PacketPressure,
    healing: Healing,
    host_check: HostCheck,
    former_pools: FormerPools,
}

/// The parts that an [`AgentState`] is made of.
pub(crate) struct AgentParts {
    pub(crate) reconciler: Reconciler,
    pub(crate) pods: PodScope,
    pub(crate) cluster_routes: ClusterRoutes,
    pub(crate) interception: Interception,
    pub(crate) events: EventFeed,
    pub(crate) config: ConfigState,
    pub(crate) state_dir: StateDir,
    pub(crate) warnings: Vec<String>,
    pub(crate) locks: Arc<Mutex<Locks>>,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) hand_over: HandOver,
    pub(crate) former_pools: FormerPools,
}

impl AgentState {
    pub(crate) fn new(parts: AgentParts) -> Self {
        let run_dir = parts.config.at_start().agent.run_dir.clone();
        Self {
            reconciler: parts.reconciler,
            attachments: AttachManager::new(),
            interfaces: InterfaceManager::new(),
            pods: parts.pods,
            cluster_routes: parts.cluster_routes,
            interception: parts.interception,
            events: parts.events,
            config: parts.config,
            state_dir: parts.state_dir,
            warnings: parts.warnings,
            storage_error: None,
            locks: parts.locks,
            listen: parts.listen,
            hand_over: parts.hand_over,
            started_at: Timestamp::now(),
            heartbeat_at: Instant::now(),
            change_counts: BTreeMap::new(),
            packet_pressure: PacketPressure::default(),
            healing: Healing::new(&run_dir),
            host_check: HostCheck::default(),
            former_pools: parts.former_pools,
        }
    }

    /// The state files.
    pub(crate) fn state_dir(&self) -> &StateDir {
        &self.state_dir
    }

    /// Damage found in the state files.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where DNS is answered.
    pub(crate) fn listen(&self) -> &[SocketAddr] {
        &self.listen
    }

    /// The agent that waits to take over, if there is one.
    pub(crate) fn successor(&self) -> Option<Successor> {
        self.hand_over.successor()
    }

    /// When the agent was started.
    pub(crate) fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// When the last heartbeat was written.
    pub(crate) fn heartbeat_at(&self) -> Instant {
        self.heartbeat_at
    }

    /// Route changes since startup, by action.
    pub(crate) fn change_counts(&self) -> &BTreeMap<String, u64> {
        &self.change_counts
    }

    /// What the packet datapath lacked within the last minute.
    pub(crate) fn pressure(&self) -> Pressure {
        self.packet_pressure.at(Instant::now())
    }

    /// Removes expired flows of guests, and notices flows that the packet datapath has refused.
    /// Called every second.
    pub(crate) fn watch_packets(&mut self) {
        if let Err(error) = self.reconciler.datapath.expire_flows() {
            warn!("failed to remove expired flows of guests: {}", error_chain(&error));
        }
        if let Ok(stats) = self.reconciler.datapath.packet_stats() {
            self.packet_pressure.update(stats, Instant::now());
        }
    }

    /// What other processes had removed, and was restored.
    pub(crate) fn healing(&self) -> &Healing {
        &self.healing
    }

    /// Why connects to the pool from outside of the scope are not refused with resets.
    pub(crate) fn no_resets(&self) -> Option<&str> {
        self.host_check.no_resets()
    }

    /// Restores links, filters, pins, directories, the guard and addresses that another process has
    /// removed. Called every second.
    pub(crate) fn heal(&mut self) {
        if self.healing.is_unloaded() {
            return;
        }
        self.restore_files();
        if let Some(checked) = self.host_check.step(self.config.at_start()) {
            self.healing.check(Part::Host, checked);
        }
        let datapath = &mut self.reconciler.datapath;
        if datapath.lacks_routes() {
            return;
        }
        self.healing.check(Part::Cgroups, datapath.heal());
        self.healing.check(Part::Interfaces, self.interfaces.heal(datapath));
        self.healing.set_pins_are_lost(datapath.pins_are_lost());
    }

    /// Counts a route change.
    pub(crate) fn count_change(&mut self, action: &str) {
        *self.change_counts.entry(action.to_owned()).or_default() += 1;
    }

    /// Writes a heartbeat to the kernel. Without one for 2 s the programs treat the agent as dead.
    pub(crate) fn heartbeat(&mut self) -> Result<(), DatapathError> {
        self.reconciler.datapath.heartbeat()?;
        self.heartbeat_at = Instant::now();
        Ok(())
    }

    /// Saves edits of the routes, and the leases with them. On disk when this returns; returns
    /// whether there was anything to record.
    pub(crate) fn save(&mut self, change: &Change<'_>, edits: &[Edit]) -> Result<bool, FileError> {
        let Reconciler { routes, leases, .. } = &mut self.reconciler;
        let saved = self.state_dir.commit(change, edits, routes.stored(), leases);
        self.storage_error = saved.as_ref().err().map(|error| error_chain(error));
        saved
    }

    /// Why the state files could not be written the last time; then changes are refused.
    pub(crate) fn storage_error(&self) -> Option<&str> {
        self.storage_error.as_deref()
    }

    /// Saves the leases that the start has made. A start without a writable disk serves as
    /// well: a name usually gets the same address again.
    pub(crate) fn save_leases(&mut self) {
        if let Err(error) = self.save(&Change::default(), &[]) {
            warn!("the state cannot be saved; retrying: {}", error_chain(&error));
        }
    }

    /// Restores the files and directories that were removed, and retries to save what could not be
    /// saved.
    fn restore_files(&mut self) {
        let restored = self.locks.lock().restore();
        self.healing.record(restored);
        if self.state_dir.notice_loss() {
            let folder = self.config.at_start().agent.state_dir.display().to_string();
            self.healing.record([format!("{folder} was removed")]);
            self.storage_error.get_or_insert_default();
        }
        if self.storage_error.is_some() {
            self.save_leases();
            if self.storage_error.is_none() {
                self.config.save_copy();
            }
        }
    }

    /// Compacts the journal when it has grown large.
    pub(crate) fn compact_journal(&mut self) {
        if !self.state_dir.needs_compaction() {
            return;
        }
        let Reconciler { routes, leases, .. } = &mut self.reconciler;
        if let Err(error) = self.state_dir.compact(routes.stored(), leases) {
            warn!("failed to compact the journal; retrying: {}", error_chain(&error));
        }
    }

    /// Attaches to cgroups and interfaces that have appeared and releases those that are gone.
    pub(crate) fn attach(&mut self) {
        self.leave_out_pods();
        let specs = &self.config.current().attach;
        let scope = Scope { attach: specs, pods: &self.pods };
        self.attachments.attach(&mut self.reconciler.datapath, scope);
        self.interfaces.attach(&mut self.reconciler.datapath, &specs.interfaces);
    }

    /// Attaches to everything that the configuration wants before it returns, with heartbeats in
    /// between. During startup nothing is attached yet.
    pub(crate) fn attach_all(&mut self) {
        /// More steps than a host has cgroups and interfaces.
        const MAX_STEPS: usize = 1000;
        if self.reconciler.datapath.lacks_routes() {
            return;
        }
        self.attach();
        for _ in 0..MAX_STEPS {
            let (cgroups, interfaces) =
                (self.attachments.is_unfinished(), self.interfaces.has_work());
            if !cgroups && !interfaces {
                break;
            }
            if let Err(error) = self.heartbeat() {
                warn!("failed to write the heartbeat to the kernel: {}", error_chain(&error));
            }
            if cgroups {
                self.on_cgroup_change();
            }
            if interfaces {
                self.on_interface_change();
            }
        }
    }

    /// Why some of what the configuration wants is not attached; none if all is.
    pub(crate) fn attach_error(&self) -> Option<String> {
        let pending = self.attachments.pending().first().map(|cgroup| cgroup.reason.as_str());
        self.attachments.error().or(pending).or(self.interfaces.error()).map(str::to_owned)
    }

    /// Ends the startup, whose first scans attach to everything in one step.
    pub(crate) fn limit_attach_steps(&mut self) {
        self.attachments.limit_steps();
        self.interfaces.limit_steps();
    }

    /// Sets the TTL of the names that the kernel answers, and whether it answers any. They are
    /// published before that, so a new agent never answers fewer names than the one before it.
    pub(crate) fn apply_name_settings(&mut self) {
        let dns = &self.config.at_start().dns;
        let enabled = self.interception.way() == InterceptWay::Packets;
        if let Err(error) = self.reconciler.datapath.set_name_settings(dns.ttl, enabled) {
            error!("failed to set how names are answered by packet: {}", error_chain(&error));
        }
    }

    /// A cgroup has come or gone.
    pub(crate) fn on_cgroup_change(&mut self) {
        let scope = Scope { attach: &self.config.current().attach, pods: &self.pods };
        self.attachments.on_change(&mut self.reconciler.datapath, scope);
    }

    /// The API server has named other pods than before.
    pub(crate) fn on_pods_change(&mut self) {
        self.pods.take();
        self.on_cgroup_change();
        self.leave_out_pods();
        self.on_interface_change();
    }

    /// Reports the outcome of the cluster's routes on this node.
    pub(crate) fn report_cluster_routes(&mut self) {
        self.cluster_routes.report(&self.reconciler);
    }

    /// Interfaces of pods that are not redirected. A bridge may learn one's port later.
    fn leave_out_pods(&mut self) {
        let selector = &self.config.current().attach.pods;
        self.interfaces.leave_out(self.pods.left_out_interfaces(selector));
    }

    /// An interface has come, changed or gone.
    pub(crate) fn on_interface_change(&mut self) {
        self.interfaces.on_change(&mut self.reconciler.datapath);
    }

    /// Retries what has failed. Called every two seconds.
    pub(crate) fn retry(&mut self) {
        self.leave_out_pods();
        let specs = &self.config.current().attach;
        let scope = Scope { attach: specs, pods: &self.pods };
        self.attachments.rescan(&mut self.reconciler.datapath, scope);
        self.interfaces.rescan(&mut self.reconciler.datapath, &specs.interfaces);
        self.former_pools.step(&mut self.reconciler.datapath);
        if self.reconciler.kernel_error().is_some() {
            // An error is recorded and logged by the reconciler.
            let _ = self.reconciler.reconcile();
        }
    }

    /// Why the agent is not ready: an upstream has not answered yet, the kernel rejected an update,
    /// or a route is not live. Empty when it is ready.
    pub(crate) fn not_ready_reasons(&self) -> Vec<String> {
        let (count, missing) = self.reconciler.unpublished(MAX_NAMED);
        let unnamed = count - missing.len();
        let upstream =
            self.reconciler.publisher().and_then(|publisher| publisher.awaited_upstream());
        missing
            .into_iter()
            .map(|source| format!("{source} is not live yet"))
            .chain((unnamed > 0).then(|| format!("{unnamed} more routes are not live yet")))
            .chain(self.reconciler.kernel_error().map(str::to_owned))
            .chain(upstream)
            .collect()
    }
}
