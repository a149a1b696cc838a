//! The event loop: the one task that changes the agent's state. Everything else sends it a command
//! or an event.

use std::{os::fd::OwnedFd, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Interval, MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    agent::{
        backend_health::{self, BackendHealth},
        changes::{
            cluster, commands,
            pending::{Completion, PendingChanges},
            reload, replies, route_changes,
        },
        events::feed::{self, EventRequest},
        interception, pods,
        process::{
            malloc,
            signals::{Signal, Signals},
            systemd::ServiceManager,
            version_record,
        },
        state::{agent_state::AgentState, reconciler::MAX_SINGLE},
        views::{metrics_snapshot, status_line},
    },
    control::{Command, HandOver, count},
    error::error_chain,
    observe::{Health, Snapshot},
};

/// The event loop's clock, which drives all periodic work. Each tick writes a heartbeat to the
/// kernel, where an agent without one for 2 s counts as dead, and probes unhealthy backends within
/// their first timeout, before they are due again.
const TICK: Duration = Duration::from_millis(500);
/// Ticks between two checks of what changes without an event, such as the configuration file.
const POLL_TICKS: u32 = 2;
/// Ticks between two retries of what has failed.
const RETRY_TICKS: u32 = 4;

/// The event loop.
pub(crate) struct EventLoop {
    state: AgentState,
    pending: PendingChanges,
    backend_health: BackendHealth,
    health: Health,
    service_manager: ServiceManager,
    hand_over: HandOver,
    scrapes: mpsc::Receiver<oneshot::Sender<Snapshot>>,
}

/// An interval that does not make up for late ticks.
fn ticks_of(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

impl EventLoop {
    pub(crate) fn new(
        state: AgentState,
        hand_over: HandOver,
        scrapes: mpsc::Receiver<oneshot::Sender<Snapshot>>,
    ) -> Self {
        Self {
            state,
            hand_over,
            pending: PendingChanges::default(),
            backend_health: BackendHealth::new(TICK),
            health: Health::default(),
            service_manager: ServiceManager::new(),
            scrapes,
        }
    }

    /// The state.
    pub(crate) fn state(&self) -> &AgentState {
        &self.state
    }

    /// Liveness and readiness, for the admin listener.
    pub(crate) fn health(&self) -> Health {
        self.health.clone()
    }

    /// Lets the service manager keep the sockets.
    pub(crate) fn store(&mut self, sockets: &[OwnedFd], unused: &[String]) {
        self.service_manager.store(sockets);
        self.service_manager.forget(unused);
    }

    /// Puts the routes in force. Those with known destinations are live at once; the agent is ready
    /// when the others have settled.
    pub(crate) fn start(&mut self) {
        let reconciler = &mut self.state.reconciler;
        reconciler.follow();
        let sources: Vec<_> =
            reconciler.routes.iter().map(|entry| entry.route.source.clone()).collect();
        for source in &sources {
            reconciler.hold_unresolved(source, None);
        }
        if !reconciler.datapath.lacks_routes() {
            self.state.attach();
        }
        self.state.reconciler.publish_installed();
        self.state.apply_name_settings();
        // Before the agent is ready: a source that is not live yet gets no answer from us, whereas
        // an upstream would deny that it exists.
        self.heartbeat();
        self.state.events.apply_sampling(&mut self.state.reconciler.datapath);
        self.state.interception.start(&mut self.state.reconciler.datapath);
        let settled =
            route_changes::settle(&mut self.state, &mut self.pending, sources, Completion::Started);
        self.complete(settled);
    }

    /// Runs until a signal ends the agent, or a part of it fails for good, as `failed` reports.
    pub(crate) async fn run(
        &mut self,
        mut commands: mpsc::Receiver<Command>,
        mut signals: Signals,
        mut failed: mpsc::Receiver<anyhow::Error>,
    ) -> anyhow::Result<()> {
        let mut resolved = self.state.reconciler.follower().subscribe();
        let (mut clock, mut tick) = (ticks_of(TICK), 0);
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => match signal {
                    Signal::Terminate => return Ok(()),
                    Signal::Hangup => self.reload(),
                },
                Some(error) = failed.recv() => return Err(error),
                () = self.hand_over.requested() => {
                    info!("another agent takes over");
                    return Ok(());
                }
                _ = clock.tick() => {
                    self.on_tick(tick);
                    tick = (tick + 1) % (POLL_TICKS * RETRY_TICKS);
                }
                Some(result) = self.backend_health.next() => {
                    backend_health::on_probe_result(&mut self.state.reconciler, result);
                }
                Some(command) = commands.recv() => {
                    let completion =
                        commands::execute(&mut self.state, &mut self.pending, command);
                    self.complete(completion);
                }
                Some(wait) = self.pending.next() => {
                    let completion = route_changes::settled(&mut self.state, wait);
                    self.complete(Some(completion));
                }
                request = self.state.events.next() => self.on_event_request(request),
                Some(scrape) = self.scrapes.recv() => {
                    drop(scrape.send(metrics_snapshot::snapshot(&self.state)));
                }
                () = self.state.attachments.changed() => self.state.on_cgroup_change(),
                () = self.state.pods.changed() => self.state.on_pods_change(),
                () = self.state.cluster_routes.changed() => {
                    let completion = cluster::apply(&mut self.state, &mut self.pending);
                    self.complete(completion);
                }
                // Last: thousands of names may have answered at once, or interfaces have come.
                Ok(()) = resolved.changed() => self.on_resolved(),
                () = self.state.interfaces.changed() => self.state.on_interface_change(),
            }
        }
    }

    /// Ends the interception of DNS at sockets, unless a successor will answer. Returns whether one
    /// will.
    pub(crate) fn prepare_shutdown(&mut self) -> bool {
        self.service_manager.stopping();
        let has_successor = self.hand_over.successor().is_some();
        if !has_successor {
            interception::stop(&mut self.state.reconciler.datapath);
        }
        has_successor
    }

    /// Ends what is under way.
    pub(crate) async fn shutdown(mut self) {
        self.pending.shutdown().await;
        self.state.cluster_routes.shutdown().await;
        if let Some(follower) = self.state.reconciler.into_follower() {
            follower.shutdown().await;
        }
    }

    fn on_tick(&mut self, tick: u32) {
        self.heartbeat();
        let config = self.state.config.current();
        self.state.interception.resume(&mut self.state.reconciler.datapath);
        self.backend_health.send_probes(&mut self.state.reconciler, config);
        if tick.is_multiple_of(RETRY_TICKS) {
            self.state.retry();
            self.state.report_cluster_routes();
            self.service_manager.status(|| status_line::of(&self.state));
        }
        if tick.is_multiple_of(POLL_TICKS) {
            self.poll();
        }
    }

    /// Checks what changes without an event: the configuration file, the backends' health, what is
    /// attached, the upstreams, the journal's length.
    fn poll(&mut self) {
        if self.state.config.has_file_changed() {
            let path = self.state.config.path().display();
            info!(%path, "the configuration file has changed");
            self.reload();
        }
        self.state.reconciler.publish_health();
        self.state.heal();
        self.state.watch_packets();
        self.state.compact_journal();
        if self.state.reconciler.take_used_large_plan() {
            malloc::trim();
        }
        self.update_readiness();
    }

    fn on_resolved(&mut self) {
        let changed = self.state.reconciler.follower().take_changed(MAX_SINGLE);
        // An error is recorded and logged by the reconciler.
        let _ = self.state.reconciler.reconcile_only(&changed);
        self.update_readiness();
    }

    fn on_event_request(&mut self, request: EventRequest) {
        match request {
            EventRequest::Names(query) => feed::answer_names(query, &self.state.reconciler),
            EventRequest::SamplingChanged => {
                self.state.events.apply_sampling(&mut self.state.reconciler.datapath);
            }
        }
    }

    /// Reloads the configuration without a request that waits for it.
    fn reload(&mut self) {
        self.service_manager.reloading();
        if let Ok(reloaded) = reload::reload(&mut self.state) {
            let settled = route_changes::settle(
                &mut self.state,
                &mut self.pending,
                reloaded.changed,
                Completion::None,
            );
            self.complete(settled);
        }
        self.service_manager.ready();
    }

    fn complete(&mut self, completion: Option<Completion>) {
        match completion {
            None => return,
            Some(Completion::Started) => self.on_started(),
            Some(Completion::Cluster) => self.state.report_cluster_routes(),
            Some(completion) => replies::send(&self.state, completion),
        }
        self.update_readiness();
    }

    fn on_started(&mut self) {
        // An older version's programs, or those of another pool, had to serve until now. Names are
        // published first, so that none goes without an answer.
        self.state.reconciler.datapath.accept_plan();
        self.state.reconciler.publish();
        self.state.attach();
        self.state.reconciler.publish();
        self.state.limit_attach_steps();
        let routes = self.state.reconciler.published_count();
        let cgroups = self.state.attachments.attachments().len();
        info!("redirecting {} for {}", count(routes, "route"), count(cgroups, "cgroup"));
        version_record::record(
            &self.state.config.at_start().agent.state_dir,
            jiff::Timestamp::now(),
            self.state.reconciler.datapath.upgraded_from(),
        );
        pods::remove_startup_taint();
        self.state.cluster_routes.follow();
        // Units that wait for us rely on interception, which needs a fresh heartbeat.
        self.heartbeat();
        self.service_manager.status(|| status_line::of(&self.state));
        self.service_manager.ready();
    }

    fn heartbeat(&mut self) {
        if let Err(error) = self.state.heartbeat() {
            warn!("failed to write the heartbeat to the kernel: {}", error_chain(&error));
        }
        self.health.heartbeat();
        self.service_manager.heartbeat();
    }

    fn update_readiness(&self) {
        self.health.set_not_ready(self.state.not_ready_reasons());
    }
}
