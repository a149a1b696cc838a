//! Startup: everything that can fail, before anything is served. The datapath comes last, so that
//! a failed start leaves no pins; what it changed on the host is undone, unless an earlier agent's
//! datapath exists and works with it.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    agent::{
        decision_log,
        event_loop::EventLoop,
        events::{pod_names::PodNames, pump::EventPump},
        first_answers,
        interception::Interception,
        pods,
        process::{
            config_watch::FileWatch,
            lock::{LockError, Locks},
            signals::Signals,
        },
        standby::Inheritance,
        state::{
            agent_state::{AgentParts, AgentState},
            cluster_routes::ClusterRoutes,
            config_state::ConfigState,
            former_pools::FormerPools,
            reconciler::{Reconciler, ReconcilerParts},
        },
    },
    atomic_file,
    backend::{Follower, FollowerSettings},
    config::{Accepted, Config, ConfigErrors},
    control::{Command, HandOver, Handle, Limits, Server},
    datapath::{self, Datapath, DatapathError, DecisionLog, Preloaded},
    dns::{self, BoundShim, ShimSettings},
    error::error_chain,
    host,
    net::InheritedSockets,
    observe::{Admin, Metrics},
    route::RouteSet,
    state::{Leases, OpenedState, State},
};

/// How long the control server waits for a reply of the event loop.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Commands that may wait for the event loop.
const MAX_QUEUED_COMMANDS: usize = 256;
/// How long everything together may take to end; the contract is two seconds.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long an agent that hands over may take to release its locks.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// An agent that has everything it needs and serves nothing yet.
pub(crate) struct BoundAgent {
    built: Built,
    signals: Signals,
    /// Last, so that it is released last.
    locks: Arc<Mutex<Locks>>,
}

struct Sockets {
    shim: Option<BoundShim>,
    control: Server,
    admin: Option<Admin>,
}

/// Builds and binds the agent, with what it inherits.
pub(crate) async fn bind(
    path: PathBuf,
    (accepted, errors): (Accepted, Option<ConfigErrors>),
    mut inheritance: Inheritance,
) -> anyhow::Result<BoundAgent> {
    let config = accepted.config.clone();
    let errors = errors.map(|errors| errors.to_string());
    if let Some(errors) = &errors {
        warn!("the configuration file is invalid; starting with its last valid content: {errors}");
    }
    let watch = FileWatch::new(&path);
    atomic_file::make_directory(&config.agent.run_dir, 0o755)?;
    let signals = Signals::listen()?;
    // Only to report that there is none before anything is changed. What is attached to may appear
    // later: at boot the agent starts before what makes its cgroup.
    datapath::cgroup2_mount()?;
    // Locking makes the directory, and this refuses one outside of a bpf file system.
    datapath::has_pins(&config.agent.bpffs)?;
    let is_successor = inheritance.waiting_since.is_some();
    let locks = Arc::new(Mutex::new(lock(&config, is_successor).await?));
    let is_first = !datapath::has_pins(&config.agent.bpffs)?;
    let config_state = ConfigState::new(path, watch, (accepted, errors));
    let pinned = datapath::pinned_pools(&config.agent.bpffs);
    // Ready without a gap: it holds the locks now.
    drop(inheritance.ready.take());
    let in_force = pinned.as_deref().unwrap_or_default();
    let built = build(config_state, Arc::clone(&locks), in_force, inheritance).await;
    match &built {
        Err(_) if is_first => undo(&config).await,
        Err(_) => undo_other_pool(&config, pinned).await,
        Ok(_) => {}
    }
    Ok(BoundAgent { built: built?, signals, locks })
}

/// Locks what two agents must not share. A successor waits for the one before it.
async fn lock(config: &Config, is_successor: bool) -> anyhow::Result<Locks> {
    let agent = &config.agent;
    let deadline = Instant::now() + RELEASE_LIMIT;
    loop {
        let others = [(&*agent.bpffs, 0o755), (&*agent.state_dir, 0o750)];
        match Locks::acquire(&agent.run_dir, &others) {
            Err(LockError::Held { .. }) if is_successor && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            locked => return Ok(locked?),
        }
    }
}

/// What [`build`] makes of a configuration.
struct Built {
    event_loop: EventLoop,
    sockets: Sockets,
    metrics: Metrics,
    event_pump: EventPump,
    decision_log: Option<DecisionLog>,
    hand_over: HandOver,
    /// The sockets, for a successor and the service manager.
    held: Vec<OwnedFd>,
    /// The names of inherited sockets that are of no use.
    unused: Vec<String>,
}

async fn build(
    config_state: ConfigState,
    locks: Arc<Mutex<Locks>>,
    pinned_pools: &[IpNet],
    mut inheritance: Inheritance,
) -> anyhow::Result<Built> {
    let config = config_state.current().clone();
    // Read only: a start that fails leaves the files as they are.
    let OpenedState { state: state_dir, mut leases, routes: stored, warnings } =
        State::open(&config.agent.state_dir, &config.pool)?;
    let path = config_state.path().to_owned();
    let routes = RouteSet::new(path, config.pool.clone(), config.routes.clone(), stored);
    leases.lease_all(routes.iter().map(|entry| &entry.route.source))?;
    let mut cluster_routes = ClusterRoutes::open(&config.agent.state_dir, &config.pool);
    let routes = with_cluster(routes, &mut leases, &mut cluster_routes);

    // Early: the API server may need a while for its first list.
    let has_followed = inheritance.pods.is_some();
    let pods = inheritance.pods.take().unwrap_or_else(pods::follow);
    let predecessor = inheritance.predecessor(locks.lock().follows_unclean_end());
    let (mut sockets, mut unused) = bind_sockets(&config, inheritance.sockets).await?;
    let listen = sockets.shim.as_ref().map(BoundShim::local_addrs).unwrap_or_default();
    if let (Some(shim), Some(preloaded)) = (&mut sockets.shim, &inheritance.preloaded) {
        first_answers::serve(shim, preloaded, &config, (&routes, &leases));
    }
    let mut datapath = open_datapath(&config, inheritance.preloaded)?;
    let former_pools = FormerPools::find(&datapath, pinned_pools).await;
    if config.pool.guard {
        host::add_guard(&config.pool).await?;
    }
    let reader = datapath
        .take_event_reader()
        .context("the events of this datapath have a reader already")?;
    let decision_log = datapath.take_decision_log();
    let (events, mut event_pump) = EventPump::new(reader, config.pool.clone());
    let interception =
        Interception::prepare(sockets.shim.as_mut(), (&mut datapath, predecessor), &config)?;
    if let Some(shim) = &mut sockets.shim {
        unused = shim.take_unused();
    }
    let held = sockets.held()?;
    let hand_over = HandOver::default();
    sockets.control = sockets.control.with_hand_over(hand_over.clone());
    // Not earlier: it creates a file.
    let follower = Follower::start(FollowerSettings {
        upstreams: config.dns.upstreams.clone(),
        own: listen.clone(),
        pool: config.pool.clone(),
        state_file: config.agent.state_dir.join("destinations.json"),
    })?;
    let mut reconciler = Reconciler::new(ReconcilerParts {
        routes,
        leases,
        datapath,
        follower,
        publisher: sockets.shim.as_ref().map(BoundShim::publisher),
        pool: config.pool.clone(),
        real_addresses: !config.dns.real_address_clients.is_empty(),
    });
    // Before the shim serves: an upstream would deny that a source exists.
    reconciler.publish_installed_to_shim();
    event_pump.name_pods(PodNames::new(pods.receiver()));
    let (scrape, scrapes) = mpsc::channel(1);
    let mut state = AgentState::new(AgentParts {
        reconciler,
        pods,
        cluster_routes,
        interception,
        events,
        config: config_state,
        state_dir,
        warnings,
        locks,
        listen,
        hand_over: hand_over.clone(),
        former_pools,
    });
    // Before a route is live: clients remember an address for ever.
    state.save_leases();
    if let Some(shim) = &mut sockets.shim {
        shim.start().context("failed to serve DNS")?;
    }
    // Not again: nothing has a heartbeat meanwhile.
    if !has_followed {
        pods::first_list(&mut state.pods).await;
    }
    Ok(Built {
        event_loop: EventLoop::new(state, hand_over.clone(), scrapes),
        sockets,
        metrics: Metrics::new(scrape),
        event_pump,
        decision_log,
        hand_over,
        held,
        unused: unused.names(),
    })
}

/// The routes with those of the cluster, unless the pool is too small for these: the others must
/// not be lost for them.
fn with_cluster(
    routes: RouteSet,
    leases: &mut Leases,
    cluster_routes: &mut ClusterRoutes,
) -> RouteSet {
    let all = routes.clone().with_cluster(cluster_routes.routes());
    match leases.lease_all(all.iter().map(|entry| &entry.route.source)) {
        Ok(()) => all,
        Err(error) => {
            cluster_routes.set_refused(Some(error_chain(&error)));
            routes
        }
    }
}

fn open_datapath(config: &Config, preloaded: Option<Preloaded>) -> anyhow::Result<Datapath> {
    let mut datapath = Datapath::open_preloaded(&datapath::Settings::from(config), preloaded)?;
    datapath.set_connect_timeout(config.health.connect_timeout)?;
    datapath.set_eject_on_reset(config.health.eject_on_reset)?;
    Ok(datapath)
}

/// Binds the sockets that are not inherited. Returns the inherited ones that are of no use.
async fn bind_sockets(
    config: &Config,
    mut inherited: InheritedSockets,
) -> anyhow::Result<(Sockets, InheritedSockets)> {
    for address in &config.dns.listen {
        host::ensure_address(address.ip()).await?;
    }
    let path = config.agent.control_socket();
    let control = match inherited.unix() {
        Some(socket) => Server::adopt(&path, Limits::default(), socket).await?,
        None => Server::bind(&path, Limits::default()).await?,
    };
    let admin = match config.agent.admin {
        Some(address) => {
            Some(bind_admin(address, inherited.tcp(address)).await.with_context(|| {
                format!(
                    "failed to bind agent.admin = \"{address}\": set it to a free address of this \
                        host, or \"off\""
                )
            })?)
        }
        None => None,
    };
    let settings = ShimSettings::from(&config.dns);
    if settings.listen.is_empty() {
        return Ok((Sockets { shim: None, control, admin }, inherited));
    }
    let shim = Some(dns::adopt(&settings, inherited).await?);
    Ok((Sockets { shim, control, admin }, InheritedSockets::default()))
}

async fn bind_admin(address: SocketAddr, inherited: Option<TcpListener>) -> io::Result<Admin> {
    match inherited {
        Some(listener) => Admin::adopt(listener),
        None => Admin::bind(address).await,
    }
}

impl Sockets {
    /// A second descriptor of each.
    fn held(&self) -> anyhow::Result<Vec<OwnedFd>> {
        let dns = self.shim.iter().flat_map(BoundShim::sockets);
        let others = self.admin.iter().map(Admin::socket).chain([self.control.socket()]);
        let clones = dns.chain(others).map(|socket| socket.try_clone_to_owned());
        clones.collect::<io::Result<_>>().context("failed to duplicate the sockets")
    }
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

/// Undoes what a failed start with another pool has changed: the earlier agent's datapath exists.
async fn undo_other_pool(config: &Config, pinned: Result<Vec<IpNet>, DatapathError>) {
    if let Err(error) = datapath::discard_prepared(&config.agent.bpffs) {
        debug!(%error, "failed to remove the prepared pins of a failed start");
    }
    // If they can't be read, a guard may be in use.
    let Ok(pinned) = pinned else { return };
    let ours = config.pool.nets().into_iter();
    for pool in ours.filter(|pool| config.pool.guard && !pinned.contains(pool)) {
        if let Err(error) = host::remove_guard(pool).await {
            debug!(%error, "failed to remove the guard of a failed start");
        }
    }
}

impl BoundAgent {
    /// Serves until a signal ends it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self { built, signals, locks } = self;
        let Built {
            mut event_loop,
            sockets,
            metrics,
            event_pump,
            decision_log,
            hand_over,
            held,
            unused,
        } = built;
        log_sockets(&event_loop);
        event_loop.store(&held, &unused);
        hand_over.set_sockets(held);
        event_loop.state().config.save_copy();
        let (shutdown, shim_stop) = (CancellationToken::new(), CancellationToken::new());
        let (commands, queue) = mpsc::channel::<Command>(MAX_QUEUED_COMMANDS);
        let (failed, failures) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        if let Some(shim) = sockets.shim {
            let stop = shim_stop.clone();
            tasks.spawn(async move {
                if let Err(error) = shim.serve(stop).await {
                    let _ = failed.send(error.context("the DNS shim has failed")).await;
                }
            });
        }
        let handle = Handle::new(commands, REPLY_TIMEOUT);
        tasks.spawn(sockets.control.serve(handle, shutdown.clone()));
        if let Some(admin) = sockets.admin {
            let sources = (metrics, event_loop.state().events.hub());
            tasks.spawn(admin.serve(event_loop.health(), sources, shutdown.clone()));
        }
        let events = tokio::spawn(event_pump.run(shutdown.clone()));
        if let Some(log) = decision_log {
            info!("the programs log each decision");
            tasks.spawn(decision_log::forward(log, shutdown.clone()));
        }
        event_loop.start();
        let ended = event_loop.run(queue, signals, failures).await;
        let has_successor = event_loop.prepare_shutdown();
        info!("stopping; the datapath stays loaded and keeps redirecting");
        shutdown.cancel();
        let all_ended = async {
            let mut event_loop = Some(event_loop);
            if has_successor {
                // DNS is answered here until the successor continues, and forwarded queries end.
                let _ = events.await;
                if let Some(event_loop) = event_loop.take() {
                    event_loop.shutdown().await;
                }
                locks.lock().release();
                hand_over.release();
            }
            shim_stop.cancel();
            while tasks.join_next().await.is_some() {}
            if let Some(event_loop) = event_loop {
                event_loop.shutdown().await;
            }
        };
        let timed_out = tokio::time::timeout(SHUTDOWN_TIMEOUT, all_ended).await.is_err();
        shim_stop.cancel();
        if timed_out {
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
