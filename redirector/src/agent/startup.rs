//! Building and binding: everything that can fail, before anything is served. The datapath comes
//! last, so that a start that fails leaves no pins; what it changed on the host before that is
//! taken back, unless an earlier agent's datapath is there and works with it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    agent::{
        attach::manager::Attached,
        event_loop::Owner,
        events::pump::{self, Reading},
        interception::Interception,
        probes::Probes,
        process::{config_watch::FileWatch, lock::Lock, signals::Signals, systemd::Notify},
        state::reconciler::Live,
    },
    atomic_file,
    backend::{Follower, FollowerSettings},
    config::Config,
    control::{Command, Handle, Limits, Server},
    datapath::{self, Datapath},
    dns::{self, BoundShim, ShimSettings},
    host,
    observe::{Admin, Health, Metrics},
    route::RouteSet,
    state::{Change, OpenedState, State},
};

/// How long the control server waits for the owner task's answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Commands that may wait for the owner task.
const QUEUE: usize = 256;
/// How long everything together may take to end; the contract is two seconds.
const LAST_CALL: Duration = Duration::from_millis(1500);

/// An agent that has everything it needs and serves nothing yet.
pub(crate) struct Bound {
    owner: Owner,
    sockets: Sockets,
    metrics: Metrics,
    events: Reading,
    signals: Signals,
    /// Last, so that it is given back last.
    _lock: Lock,
}

struct Sockets {
    shim: Option<BoundShim>,
    control: Server,
    admin: Option<Admin>,
}

/// Builds and binds the agent.
pub(crate) async fn bind(path: PathBuf, config: Config) -> anyhow::Result<Bound> {
    let watch = FileWatch::new(&path);
    atomic_file::make_directory(&config.agent.run_dir, 0o755)?;
    let lock = Lock::take(&config.agent.run_dir)?;
    let signals = Signals::listen()?;
    // Only to tell a wrong pattern before anything is changed; the owner task looks again and
    // again.
    datapath::cgroups(&config.attach.cgroups)?;
    let fresh = !datapath::has_pins(&config.agent.bpffs)?;
    let built = build(path, config.clone(), watch).await;
    if built.is_err() && fresh {
        take_back(&config).await;
    }
    let (owner, sockets, metrics, events) = built?;
    Ok(Bound { owner, sockets, metrics, events, signals, _lock: lock })
}

async fn build(
    path: PathBuf,
    config: Config,
    watch: FileWatch,
) -> anyhow::Result<(Owner, Sockets, Metrics, Reading)> {
    let OpenedState { mut state, mut leases, routes: stored, warnings } =
        State::open(&config.agent.state_dir, &config.pool)?;
    let routes = RouteSet::new(path.clone(), config.pool.clone(), config.routes.clone(), stored);
    leases.lease_all(routes.iter().map(|entry| &entry.route.source))?;
    state.commit(&Change::default(), &[], routes.stored(), &mut leases)?;

    let (mut sockets, listen) = sockets(&config).await?;
    if config.pool.guard {
        host::guard(&config.pool).await?;
    }
    let mut datapath = Datapath::open(&datapath::Settings {
        bpffs: config.agent.bpffs.clone(),
        pool: config.pool.clone(),
    })?;
    datapath.set_connect_timeout(config.health.connect_timeout)?;
    let reader =
        datapath.take_event_reader().context("the events of this datapath are read already")?;
    let (events, reading) = pump::new(reader, config.pool.clone());
    let interception = Interception::prepare(sockets.shim.as_mut(), &mut datapath, &config)?;
    // Only now: it leaves a file behind.
    let follower = Follower::start(FollowerSettings {
        upstreams: config.dns.upstreams.clone(),
        own: listen.clone(),
        state_file: config.agent.state_dir.join("destinations.json"),
    })?;

    let publisher = sockets.shim.as_ref().map(BoundShim::publisher);
    let mut live = Live::new(routes, leases, datapath, follower, publisher, config.pool.clone());
    live.real_addresses = !config.dns.real_address_clients.is_empty();
    // Before anything is served: a source must not be asked of an upstream, which denies it.
    live.publish();
    let now = jiff::Timestamp::now();
    let (asking, scrapes) = mpsc::channel(1);
    let owner = Owner {
        live,
        state,
        at_start: config.clone(),
        config,
        config_path: path,
        config_error: None,
        restart_needed: Vec::new(),
        loaded_at: now,
        started_at: now,
        beaten_at: Instant::now(),
        health_due: Instant::now(),
        listen,
        warnings,
        attached: Attached::new(),
        interception,
        watch,
        waits: JoinSet::new(),
        health: Health::default(),
        notify: Notify::new(),
        probes: Probes::default(),
        changes: std::collections::BTreeMap::new(),
        scrapes,
        events,
    };
    Ok((owner, sockets, Metrics::new(asking), reading))
}

async fn sockets(config: &Config) -> anyhow::Result<(Sockets, Vec<SocketAddr>)> {
    for address in &config.dns.listen {
        host::ensure_address(address.ip()).await?;
    }
    let settings = ShimSettings::from(&config.dns);
    let shim = if settings.listen.is_empty() { None } else { Some(dns::bind(&settings).await?) };
    let listen = shim.as_ref().map(BoundShim::local_addrs).unwrap_or_default();
    let control = Server::bind(&config.agent.control_socket(), Limits::default()).await?;
    let admin = match config.agent.admin {
        Some(address) => {
            let bound = Admin::bind(address).await;
            let remedy = || {
                format!(
                    "failed to bind agent.admin = \"{address}\": give it a free address of this \
                        host, or \"off\""
                )
            };
            Some(bound.with_context(remedy)?)
        }
        None => None,
    };
    Ok((Sockets { shim, control, admin }, listen))
}

/// Takes back what a failed first start has changed on the host.
async fn take_back(config: &Config) {
    let mut errors = Vec::new();
    if let Err(error) = datapath::unload(&config.agent.bpffs) {
        tracing::debug!(%error, "failed to take back the pins of a start that failed");
    }
    for address in &config.dns.listen {
        errors.extend(host::remove_address(address.ip()).await.err());
    }
    if config.pool.guard {
        errors.extend(host::remove_guard(config.pool.ipv4).await.err());
        if let Some(ipv6) = config.pool.ipv6 {
            errors.extend(host::remove_guard(ipv6).await.err());
        }
    }
    for error in errors {
        // Whoever may not add may not remove; the start's own error says it.
        tracing::debug!(%error, "failed to take back a change of the host");
    }
}

impl Bound {
    /// Serves until a signal ends it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self { mut owner, sockets, metrics, events, signals, _lock } = self;
        let shutdown = CancellationToken::new();
        let (commands, queue) = mpsc::channel::<Command>(QUEUE);
        let (failed, failures) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        info!(
            config = %owner.config_path.display(),
            dns = ?owner.listen,
            control = %owner.config.agent.control_socket().display(),
            admin = owner.config.agent.admin.map(|address| address.to_string()),
            "redirector {} has its sockets",
            env!("CARGO_PKG_VERSION")
        );
        if let Some(shim) = sockets.shim {
            let stop = shutdown.clone();
            tasks.spawn(async move {
                if let Err(error) = shim.serve(stop).await {
                    let _ = failed.send(error.context("the DNS shim has failed")).await;
                }
            });
        }
        tasks.spawn(sockets.control.serve(Handle::new(commands, PATIENCE), shutdown.clone()));
        if let Some(admin) = sockets.admin {
            tasks.spawn(admin.serve(owner.health.clone(), metrics, shutdown.clone()));
        }
        tasks.spawn(events.run(shutdown.clone()));
        owner.start();
        let ended = owner.run(queue, signals, failures).await;
        owner.notify.stopping();
        owner.stop_intercepting();
        info!("stopping; the datapath stays and goes on redirecting");
        shutdown.cancel();
        let last_call = async {
            while tasks.join_next().await.is_some() {}
            owner.waits.shutdown().await;
            if let Some(follower) = std::sync::Arc::into_inner(owner.live.follower) {
                follower.shutdown().await;
            }
        };
        if tokio::time::timeout(LAST_CALL, last_call).await.is_err() {
            warn!("not everything had ended within {LAST_CALL:?}");
        }
        ended
    }
}
