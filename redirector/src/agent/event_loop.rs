//! The owner task: the one place where anything changes. Everything else sends it a command or an
//! event.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use crate::{
    agent::{
        attach::manager::Attached,
        changes::commands::{Finish, Settled},
        events::pump::{Events, Wants},
        interception::Interception,
        probes::{Pace, Probes},
        process::{
            config_watch::FileWatch,
            signals::{Signal, Signals},
            systemd::Notify,
        },
        state::reconciler::Live,
    },
    config::Config,
    control::{Command, count},
    error::error_chain,
    observe::Health,
    state::State,
};

/// The owner's one clock, on whose ticks everything happens that no event tells of: an agent that
/// has nothing to do wakes this often. Each tick is a sign of life for the programs in the kernel,
/// which take the agent for dead after 2 s; and a look at the backends' health, within their first
/// time-out, so that a probe is under way before they are due again.
const TICK: Duration = Duration::from_millis(500);
/// Every so many ticks the configuration file is looked at, and what else changes without an event.
const LOOK: u32 = 2;
/// Every so many ticks what has failed is tried again.
const RESCAN: u32 = 4;

/// Looking at the health takes no more than one part in this many: that of a full pool's backends
/// is some milliseconds to read.
const HEALTH_SHARE: u32 = 200;

/// The agent's state. See [`Owner::run`].
pub(crate) struct Owner {
    pub(crate) live: Live,
    pub(crate) state: State,
    /// The configuration in force.
    pub(crate) config: Config,
    /// The one that the agent was started with, whose addresses and directories it keeps.
    pub(crate) at_start: Config,
    pub(crate) config_path: PathBuf,
    pub(crate) config_error: Option<String>,
    pub(crate) restart_needed: Vec<String>,
    pub(crate) loaded_at: jiff::Timestamp,
    pub(crate) started_at: jiff::Timestamp,
    pub(crate) beaten_at: Instant,
    /// When the backends' health may be looked at again.
    pub(crate) health_due: Instant,
    /// Where DNS is answered.
    pub(crate) listen: Vec<SocketAddr>,
    /// What was amiss with the state files.
    pub(crate) warnings: Vec<String>,
    pub(crate) attached: Attached,
    pub(crate) interception: Interception,
    pub(crate) watch: FileWatch,
    pub(crate) waits: JoinSet<Settled>,
    pub(crate) health: Health,
    pub(crate) notify: Notify,
    pub(crate) probes: Probes,
    /// Changes of routes since the start, by kind.
    pub(crate) changes: std::collections::BTreeMap<String, u64>,
    /// Questions of the metrics.
    pub(crate) scrapes: mpsc::Receiver<tokio::sync::oneshot::Sender<crate::observe::Snapshot>>,
    pub(crate) events: Events,
}

/// Ticks that are late are not made up for.
fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

impl Owner {
    /// Owns the state until a signal ends the agent. `failed` tells that a part of it has ended for
    /// good.
    pub(crate) async fn run(
        &mut self,
        mut commands: mpsc::Receiver<Command>,
        mut signals: Signals,
        mut failed: mpsc::Receiver<anyhow::Error>,
    ) -> anyhow::Result<()> {
        let mut changes = self.live.follower.subscribe();
        let (mut clock, mut ticks) = (every(TICK), 0);
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => match signal {
                    Signal::Terminate => return Ok(()),
                    Signal::Hangup => self.reload_unasked(),
                },
                Some(error) = failed.recv() => return Err(error),
                _ = clock.tick() => {
                    self.tick(ticks);
                    ticks = (ticks + 1) % (LOOK * RESCAN);
                }
                Some(settled) = self.waits.join_next(), if !self.waits.is_empty() => match settled {
                    Ok(settled) => self.settled(settled),
                    Err(error) => error!(%error, "a wait for new destinations panicked"),
                },
                Some(result) = self.probes.next() => self.probed(result),
                Ok(()) = changes.changed() => {
                    let learned = self.live.follower.take_changed();
                    let _ = self.live.reconcile_only(&learned);
                    self.tell_readiness();
                }
                Some(command) = commands.recv() => self.command(command),
                wants = self.events.next() => match wants {
                    Wants::Names(question) => self.name_events(question),
                    Wants::OtherSampling => self.tell_events(),
                },
                Some(scrape) = self.scrapes.recv() => drop(scrape.send(crate::agent::views::metrics_snapshot::snapshot(self))),
                () = self.attached.watch.changed() => self.cgroups_changed(),
            }
        }
    }

    /// What is due at the tick of this number.
    fn tick(&mut self, number: u32) {
        self.beat();
        self.knock();
        if number.is_multiple_of(RESCAN) {
            self.rescan();
            self.free_idle_resolvers();
            if self.live.refused.is_some() {
                // Noted where it is known, once.
                let _ = self.live.reconcile();
            }
        }
        if number.is_multiple_of(LOOK) {
            self.look();
        }
    }

    /// The first plan: what is known is live at once, what is not is waited for, and the agent is
    /// ready then.
    pub(crate) fn start(&mut self) {
        self.live.follow();
        let known = self.live.follower.current();
        let sources: Vec<_> =
            self.live.routes.iter().map(|entry| entry.route.source.clone()).collect();
        for source in &sources {
            if !known
                .get(source)
                .is_some_and(|resolved| crate::agent::state::desired_state::is_known(resolved))
            {
                self.live.awaits(source, false);
            }
        }
        if !self.live.datapath.lacks_routes() {
            self.attach();
        }
        self.live.publish_what_stands();
        // Before the agent is ready: a source that is not live yet gets no answer from us, where an
        // upstream would deny it.
        self.beat();
        self.tell_events();
        self.intercept();
        self.settle_changed(sources, Finish::Started);
    }

    /// The start is over.
    pub(crate) fn started(&mut self) {
        // Where an older version's programs had to go on serving until now.
        self.attach();
        self.attached.started();
        let (routes, cgroups) = (self.live.published.len(), self.attached.list.len());
        info!("redirecting {} for {}", count(routes, "route"), count(cgroups, "cgroup"));
        crate::agent::process::version_record::note(
            &self.at_start.agent.state_dir,
            jiff::Timestamp::now(),
            self.live.datapath.upgraded_from(),
        );
        // Whoever waits for us relies on interception, which takes an agent without a sign of life
        // for dead.
        self.beat();
        self.notify.ready();
    }

    fn beat(&mut self) {
        match self.live.datapath.heartbeat() {
            Ok(()) => self.beaten_at = Instant::now(),
            Err(error) => {
                warn!("failed to give a sign of life to the datapath: {}", error_chain(&error))
            }
        }
        self.health.alive();
        self.notify.alive();
    }

    /// At what changes without an event: the configuration file, the backends' health, the
    /// upstreams, the journal's length.
    fn look(&mut self) {
        if self.watch.poll() {
            info!(path = %self.config_path.display(), "the configuration file has changed");
            self.reload_unasked();
        }
        self.intercept();
        if self.live.real_addresses {
            self.live.publish();
        }
        if self.state.needs_compaction()
            && let Err(error) = self.state.compact(self.live.routes.stored(), &mut self.live.leases)
        {
            warn!("failed to fold the journal of changes; trying again: {}", error_chain(&error));
        }
        if std::mem::take(&mut self.live.much_planned) {
            crate::agent::process::malloc::give_back();
        }
        self.tell_readiness();
    }

    fn reload_unasked(&mut self) {
        self.notify.reloading();
        if let Ok(reloaded) = self.reload() {
            self.settle_changed(reloaded.changed, Finish::Nothing);
        }
        self.notify.ready();
    }

    /// Sends a probe to every backend that has failed. It stays set aside until its next probe
    /// begins: its own time-out may be over earlier, and then an application's connect would be the
    /// one to find out that it still fails.
    fn knock(&mut self) {
        let began = Instant::now();
        if began < self.health_due {
            return;
        }
        let suspects = self.live.datapath.unhealthy_backends();
        self.health_due = began + began.elapsed() * HEALTH_SHARE;
        let suspects = match suspects {
            Ok(suspects) => suspects,
            Err(error) => {
                return warn!("failed to read which backends have failed: {}", error_chain(&error));
            }
        };
        let pace = Pace {
            interval: self.config.health.probe_interval,
            timeout: self.config.health.connect_timeout,
        };
        for (index, address) in self.probes.send(suspects, pace) {
            if let Err(error) = self.live.datapath.extend_ejection(
                index,
                address,
                pace.longest_gap(self.health_gap()),
            ) {
                warn!(backend = %address, "failed to keep a backend set aside: {}", error_chain(&error));
            }
        }
    }

    /// From one look at the backends' health to the next.
    fn health_gap(&self) -> Duration {
        TICK + self.health_due.saturating_duration_since(Instant::now())
    }

    fn probed(&mut self, result: crate::agent::probes::Probed) {
        let source = self.live.leases.source_of(result.index).cloned();
        match result.outcome {
            Ok(_) => match self.live.datapath.reinstate(result.index, result.address) {
                Ok(()) => {
                    info!(source = source.map(|source| source.to_string()), backend = %result.address, "a backend is back")
                }
                Err(error) => {
                    warn!(backend = %result.address, "failed to reinstate a backend: {}", error_chain(&error))
                }
            },
            // Perhaps the load balancer has moved: its name is asked earlier than its TTL says.
            Err(_) => {
                if let Some(source) = source {
                    self.live.follower.refresh(&source);
                }
            }
        }
    }

    /// Ready is: bound, which it is by now, an upstream has answered once, and every route's VIP in
    /// the kernel and answered.
    pub(crate) fn tell_readiness(&self) {
        // What is published has a route, so equal numbers say that nothing is missing; a full pool
        // is not searched every second for that.
        let all = self.live.published.len() == self.live.routes.len();
        let routes = (!all)
            .then(|| self.live.routes.iter().map(|entry| &entry.route.source))
            .into_iter()
            .flatten();
        let missing = routes.filter(|source| !self.live.published.contains_key(source));
        let upstream =
            self.live.publisher.as_ref().and_then(|publisher| publisher.awaited_upstream());
        let reasons = missing
            .map(|source| format!("{source} is not live yet"))
            .chain(self.live.refused.clone())
            .chain(upstream)
            .collect();
        self.health.set_not_ready(reasons);
    }
}
