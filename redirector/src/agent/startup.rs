//! Startup: everything that can fail, before anything is served. The datapath comes last, so that
//! a failed start leaves no pins; what it changed on the host is undone, unless an earlier agent's
//! datapath exists and works with it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    agent::{
        decision_log,
        event_loop::EventLoop,
        events::pump::EventPump,
        interception::Interception,
        process::{config_watch::FileWatch, lock::Locks, signals::Signals},
        state::{
            agent_state::{AgentParts, AgentState},
            config_state::ConfigState,
            reconciler::{Reconciler, ReconcilerParts},
        },
    },
    atomic_file,
    backend::{Follower, FollowerSettings},
    config::{Accepted, Config, ConfigErrors},
    control::{Command, Handle, Limits, Server},
    datapath::{self, Datapath, DecisionLog},
    dns::{self, BoundShim, ShimSettings},
    host,
    observe::{Admin, Metrics},
    route::RouteSet,
    state::{OpenedState, State},
};

/// How long the control server waits for a reply of the event loop.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Commands that may wait for the event loop.
const MAX_QUEUED_COMMANDS: usize = 256;
/// How long everything together may take to end; the contract is two seconds.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(1500);

/// An agent that has everything it needs and serves nothing yet.
pub(crate) struct BoundAgent {
    event_loop: EventLoop,
    sockets: Sockets,
    metrics: Metrics,
    event_pump: EventPump,
    decision_log: Option<DecisionLog>,
    signals: Signals,
    /// Last, so that it is released last.
    _locks: Arc<Mutex<Locks>>,
}

struct Sockets {
    shim: Option<BoundShim>,
    control: Server,
    admin: Option<Admin>,
}

/// Builds and binds the agent.
pub(crate) async fn bind(
    path: PathBuf,
    (accepted, errors): (Accepted, Option<ConfigErrors>),
) -> anyhow::Result<BoundAgent> {
    let config = accepted.config.clone();
    let errors = errors.map(|errors| errors.to_string());
    if let Some(errors) = &errors {
        warn!("the configuration file is invalid; starting with its last valid content: {errors}");
    }
    let watch = FileWatch::new(&path);
    atomic_file::make_directory(&config.agent.run_dir, 0o755)?;
    let signals = Signals::listen()?;
    // Only to report an invalid pattern before anything is changed.
    datapath::cgroups(&config.attach.cgroups)?;
    // Locking makes the directory, and this refuses one outside of a bpf file system.
    datapath::has_pins(&config.agent.bpffs)?;
    let locks = Arc::new(Mutex::new(lock(&config)?));
    let is_first = !datapath::has_pins(&config.agent.bpffs)?;
    let built = build(ConfigState::new(path, watch, (accepted, errors)), Arc::clone(&locks)).await;
    if built.is_err() && is_first {
        undo(&config).await;
    }
    let Built { event_loop, sockets, metrics, event_pump, decision_log } = built?;
    Ok(BoundAgent {
        event_loop,
        sockets,
        metrics,
        event_pump,
        decision_log,
        signals,
        _locks: locks,
    })
}

/// Locks what two agents must not share.
fn lock(config: &Config) -> anyhow::Result<Locks> {
    let agent = &config.agent;
    Ok(Locks::acquire(&agent.run_dir, &[(&agent.bpffs, 0o755), (&agent.state_dir, 0o750)])?)
}

/// What [`build`] makes of a configuration.
struct Built {
    event_loop: EventLoop,
    sockets: Sockets,
    metrics: Metrics,
    event_pump: EventPump,
    decision_log: Option<DecisionLog>,
}

async fn build(config_state: ConfigState, locks: Arc<Mutex<Locks>>) -> anyhow::Result<Built> {
    let config = config_state.current().clone();
    // Read only: a start that fails leaves the files as they are.
    let OpenedState { state: state_dir, mut leases, routes: stored, warnings } =
        State::open(&config.agent.state_dir, &config.pool)?;
    let path = config_state.path().to_owned();
    let routes = RouteSet::new(path, config.pool.clone(), config.routes.clone(), stored);
    leases.lease_all(routes.iter().map(|entry| &entry.route.source))?;

    let (mut sockets, listen) = bind_sockets(&config).await?;
    let mut datapath = open_datapath(&config)?;
    if config.pool.guard {
        host::add_guard(&config.pool).await?;
    }
    let reader = datapath
        .take_event_reader()
        .context("the events of this datapath have a reader already")?;
    let decision_log = datapath.take_decision_log();
    let (events, event_pump) = EventPump::new(reader, config.pool.clone());
    let interception = Interception::prepare(sockets.shim.as_mut(), &mut datapath, &config)?;
    // Not earlier: it creates a file.
    let follower = Follower::start(FollowerSettings {
        upstreams: config.dns.upstreams.clone(),
        own: listen.clone(),
        pool: config.pool.clone(),
        state_file: config.agent.state_dir.join("destinations.json"),
    })?;
    let reconciler = Reconciler::new(ReconcilerParts {
        routes,
        leases,
        datapath,
        follower,
        publisher: sockets.shim.as_ref().map(BoundShim::publisher),
        pool: config.pool.clone(),
        real_addresses: !config.dns.real_address_clients.is_empty(),
    });
    // Before the shim serves: an upstream would deny that a source exists.
    reconciler.publish_to_shim();
    let (scrape, scrapes) = mpsc::channel(1);
    let mut state = AgentState::new(AgentParts {
        reconciler,
        interception,
        events,
        config: config_state,
        state_dir,
        warnings,
        locks,
        listen,
    });
    // Before a route is live: clients remember an address for ever.
    state.save_leases();
    Ok(Built {
        event_loop: EventLoop::new(state, scrapes),
        sockets,
        metrics: Metrics::new(scrape),
        event_pump,
        decision_log,
    })
}

fn open_datapath(config: &Config) -> anyhow::Result<Datapath> {
    let settings = datapath::Settings {
        bpffs: config.agent.bpffs.clone(),
        pool: config.pool.clone(),
        debug_log: config.datapath.logs_decisions(),
    };
    let mut datapath = Datapath::open(&settings)?;
    datapath.set_connect_timeout(config.health.connect_timeout)?;
    Ok(datapath)
}

async fn bind_sockets(config: &Config) -> anyhow::Result<(Sockets, Vec<SocketAddr>)> {
    for address in &config.dns.listen {
        host::ensure_address(address.ip()).await?;
    }
    let settings = ShimSettings::from(&config.dns);
    let shim = if settings.listen.is_empty() { None } else { Some(dns::bind(&settings).await?) };
    let listen = shim.as_ref().map(BoundShim::local_addrs).unwrap_or_default();
    let control = Server::bind(&config.agent.control_socket(), Limits::default()).await?;
    let admin = match config.agent.admin {
        Some(address) => Some(Admin::bind(address).await.with_context(|| {
            format!(
                "failed to bind agent.admin = \"{address}\": set it to a free address of this \
                    host, or \"off\""
            )
        })?),
        None => None,
    };
    Ok((Sockets { shim, control, admin }, listen))
}

/// Undoes what a failed first start has changed on the host.
async fn undo(config: &Config) {
    let mut errors = Vec::new();
    if let Err(error) = datapath::unload(&config.agent.bpffs) {
        debug!(%error, "failed to remove the pins of a failed start");
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
        // Without the permission to add, there is none to remove; the start's own error shows it.
        debug!(%error, "failed to undo a change of the host");
    }
}

impl BoundAgent {
    /// Serves until a signal ends it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self { mut event_loop, sockets, metrics, event_pump, decision_log, signals, _locks } =
            self;
        log_sockets(&event_loop);
        event_loop.state().config.save_copy();
        let shutdown = CancellationToken::new();
        let (commands, queue) = mpsc::channel::<Command>(MAX_QUEUED_COMMANDS);
        let (failed, failures) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        if let Some(shim) = sockets.shim {
            let stop = shutdown.clone();
            tasks.spawn(async move {
                if let Err(error) = shim.serve(stop).await {
                    let _ = failed.send(error.context("the DNS shim has failed")).await;
                }
            });
        }
        let handle = Handle::new(commands, REPLY_TIMEOUT);
        tasks.spawn(sockets.control.serve(handle, shutdown.clone()));
        if let Some(admin) = sockets.admin {
            tasks.spawn(admin.serve(event_loop.health(), metrics, shutdown.clone()));
        }
        tasks.spawn(event_pump.run(shutdown.clone()));
        if let Some(log) = decision_log {
            info!("the programs log each decision");
            tasks.spawn(decision_log::forward(log, shutdown.clone()));
        }
        event_loop.start();
        let ended = event_loop.run(queue, signals, failures).await;
        event_loop.prepare_shutdown();
        info!("stopping; the datapath stays loaded and keeps redirecting");
        shutdown.cancel();
        let all_ended = async {
            while tasks.join_next().await.is_some() {}
            event_loop.shutdown().await;
        };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, all_ended).await.is_err() {
            warn!("not everything had ended within {SHUTDOWN_TIMEOUT:?}");
        }
        ended
    }
}

fn log_sockets(event_loop: &EventLoop) {
    let config = &event_loop.state().config;
    info!(
        config = %config.path().display(),
        dns = ?event_loop.state().listen(),
        control = %config.current().agent.control_socket().display(),
        admin = config.current().agent.admin.map(|address| address.to_string()),
        "redirector {} has its sockets",
        env!("CARGO_PKG_VERSION")
    );
}
