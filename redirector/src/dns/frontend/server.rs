//! The shim as a whole: bound first, then served until told to stop.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    intercept_ports::{self, Asked, ResolverOfSlot, SlotPorts},
    listener::{BindError, Listener},
    tcp, udp,
};
use crate::{
    config::{self, DnsClients, Upstream},
    dns::{
        access::{Access, Client, Limits, Quotas, RATE, REFUSALS},
        forward::{Forwarder, Loops, UpstreamHealth, Upstreams},
        local::{self, Answer, Answers, Outcome, Terms},
        stats::{Counters, DnsCounters, DnsTally},
        wire::Reply,
    },
    net::{Nameservers, RESOLV_CONF},
    route::SourceName,
};

/// How long a query that is being forwarded may go on after the shim was told to stop.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);
/// Interception ends in the kernel before it ends here, and a query may be on its way between the
/// two. A socket of it is closed when nothing has come for so long,
pub(crate) const QUIET: Duration = Duration::from_millis(100);
/// or, since a client's connected socket may go on asking, after this time.
pub(crate) const LINGER: Duration = Duration::from_millis(400);
/// How long it may take to say so to those that are still waiting then.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What the shim needs to know.
#[derive(Clone, Debug)]
pub struct ShimSettings {
    /// Where it answers, over UDP and TCP. Port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Who is asked for names that are not ours.
    pub upstreams: Vec<Upstream>,
    /// Whose queries are answered; those of others are refused.
    pub clients: Vec<DnsClients>,
    /// Of these and besides these, who gets real addresses.
    pub real_address_clients: Vec<IpNet>,
    /// Time to live of our answers, in seconds.
    pub ttl: u32,
}

impl From<&config::Dns> for ShimSettings {
    fn from(dns: &config::Dns) -> Self {
        let config::Dns { listen, upstreams, clients, real_address_clients, ttl, intercept: _ } =
            dns.clone();
        Self { listen, upstreams, clients, real_address_clients, ttl }
    }
}

/// A shim that has its sockets and does not answer yet.
#[derive(Debug)]
pub struct BoundShim {
    listeners: Vec<Listener>,
    /// Those of intercepted DNS, a list for each address.
    intercepted: Vec<Vec<Listener>>,
    core: Arc<Core>,
}

/// Gives a shim its answers and reads its counters.
#[derive(Clone, Debug)]
pub struct Publisher {
    core: Arc<Core>,
}

/// Who asks, whom, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) client: IpAddr,
    /// Our address.
    pub(crate) own: IpAddr,
    pub(crate) now: Instant,
}

/// What every socket's task shares.
#[derive(Debug)]
pub(crate) struct Core {
    answers: ArcSwap<Answers>,
    access: ArcSwap<Access>,
    quotas: Quotas,
    ttl: AtomicU32,
    /// Our addresses with their true ports.
    own: Vec<SocketAddr>,
    resolv_conf: PathBuf,
    pub(crate) counters: Arc<Counters>,
    pub(crate) forwarder: Forwarder,
    loops: Loops,
    pub(crate) limits: Limits,
    /// Tasks that wait for upstreams.
    pub(crate) tasks: TaskTracker,
}

/// Binds every address, or none. Nothing is answered before [`BoundShim::serve`] runs; what arrives
/// until then waits in the sockets.
///
/// # Errors
///
/// [`BindError`], which names the address and what to do, also when there is no upstream left to
/// forward to.
pub async fn bind(settings: &ShimSettings) -> Result<BoundShim, BindError> {
    bind_with(settings, Path::new(RESOLV_CONF))
}

/// As [`bind`], with another file in the place of /etc/resolv.conf.
pub(crate) fn bind_with(
    settings: &ShimSettings,
    resolv_conf: &Path,
) -> Result<BoundShim, BindError> {
    if settings.listen.is_empty() {
        return Err(BindError::NoAddress);
    }
    let listeners = settings
        .listen
        .iter()
        .map(|address| Listener::bind(*address))
        .collect::<Result<Vec<_>, _>>()?;
    let own: Vec<_> = listeners.iter().map(|listener| listener.address).collect();
    let upstreams = upstreams(settings, &own, resolv_conf)?;
    let counters = Arc::new(Counters::default());
    let limits = Limits::of_this_process();
    let core = Core {
        answers: ArcSwap::default(),
        access: ArcSwap::from_pointee(Access::new(
            &settings.clients,
            &settings.real_address_clients,
        )),
        quotas: Quotas::new(),
        ttl: AtomicU32::new(settings.ttl),
        own,
        resolv_conf: resolv_conf.into(),
        counters: Arc::clone(&counters),
        forwarder: Forwarder::new(upstreams, counters, limits),
        loops: Loops::new(),
        limits,
        tasks: TaskTracker::new(),
    };
    Ok(BoundShim { listeners, intercepted: Vec::new(), core: Arc::new(core) })
}

/// The servers to forward to, which are never ourselves and at least one.
fn upstreams(
    settings: &ShimSettings,
    own: &[SocketAddr],
    resolv_conf: &Path,
) -> Result<Upstreams, BindError> {
    let ours = |upstream: &Upstream| match upstream {
        Upstream::Server(server) if own.contains(server) => Some(*server),
        _ => None,
    };
    if let Some(server) = settings.upstreams.iter().find_map(ours) {
        return Err(BindError::Loop(server));
    }
    let nameservers =
        Nameservers::with_resolv_conf(settings.upstreams.clone(), own.to_vec(), resolv_conf);
    if nameservers.current().is_empty() {
        return Err(BindError::NoUpstream(nameservers.problem().unwrap_or_default()));
    }
    Ok(Upstreams::new(nameservers))
}

impl BoundShim {
    /// The addresses that it answers on, with their true ports, in the order of the settings.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    /// Opens `count` further ports for intercepted DNS, which follow each other. What arrives at
    /// one of them, and is not ours, goes to the resolver that `resolver_of` names for its slot.
    ///
    /// # Errors
    ///
    /// [`BindError`], when no row of ports is free, or our own queries can't be told from those of
    /// executors.
    pub fn intercept(
        &mut self,
        count: u16,
        resolver_of: Box<ResolverOfSlot>,
    ) -> Result<SlotPorts, BindError> {
        let (ports, listeners) = intercept_ports::open(&self.local_addrs(), count)?;
        self.intercepted = listeners;
        self.core.forwarder.set_asked(Asked::new(resolver_of, self.core.own.clone()));
        Ok(ports)
    }

    /// A handle for publishing answers and reading counters, before and while it serves.
    pub fn publisher(&self) -> Publisher {
        Publisher { core: Arc::clone(&self.core) }
    }

    /// Answers until `shutdown` is cancelled; queries that are being forwarded then have a second
    /// to end.
    ///
    /// # Errors
    ///
    /// When a socket fails for good, or a task of ours panicked.
    pub async fn serve(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        // Dropped on every way out, so that no task of ours outlives this call.
        let stop = shutdown.child_token();
        let _stop = stop.clone().drop_guard();
        let mut sockets = JoinSet::new();
        for listeners in
            self.listeners.into_iter().map(|listener| vec![listener]).chain(self.intercepted)
        {
            let room = tcp::Room::new(self.core.limits);
            let mut doors = Vec::new();
            for Listener { address, udp, tcp, slot } in listeners {
                doors.push((udp, address, slot));
                sockets.spawn(tcp::serve(
                    (tcp, address, slot),
                    room.clone(),
                    Arc::clone(&self.core),
                    stop.clone(),
                ));
            }
            let (core, stopped) = (Arc::clone(&self.core), stop.clone());
            sockets.spawn_blocking(move || udp::run(doors, &core, &stopped));
        }
        let (core, quiet) = (Arc::clone(&self.core), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = futures_util::future::join(core.forwarder.first_contact(), core.loops.watch(&core.forwarder)) => {}
                () = quiet.cancelled() => {}
            }
        });
        let core = Arc::clone(&self.core);
        let everything = async {
            while let Some(ended) = sockets.join_next().await {
                ended.context("a task of the DNS shim panicked")??;
            }
            core.tasks.close();
            core.tasks.wait().await;
            Ok(())
        };
        tokio::select! {
            ended = everything => ended,
            () = self.core.end(&stop) => Ok(()),
        }
    }
}

impl Publisher {
    /// Makes these the answers, at once and as a whole.
    pub fn publish(&self, mut answers: Answers) {
        answers.inherit(&self.core.answers.load());
        self.core.answers.store(Arc::new(answers));
    }

    /// Gives these sources other answers, at once and together; `None`: the name is not ours any
    /// more. Costs what it changes, however many answers there are.
    pub fn update(&self, changes: impl IntoIterator<Item = (SourceName, Option<Answer>)>) {
        let now = self.core.answers.load();
        let mut next: Option<Answers> = None;
        for (source, answer) in changes {
            if next.as_ref().unwrap_or(&now).get(&source) != answer.as_ref() {
                next.get_or_insert_with(|| Answers::clone(&now)).set(&source, answer);
            }
        }
        if let Some(next) = next {
            self.core.answers.store(Arc::new(next));
        }
    }

    /// Whether these are the answers now.
    pub fn says(&self, answers: impl IntoIterator<Item = (SourceName, Answer)>) -> bool {
        self.core.answers.load().says(answers)
    }

    /// Takes the upstreams, the clients and the TTL of other settings, for the next query on. Where
    /// it listens stays as it was bound.
    ///
    /// # Errors
    ///
    /// [`BindError::Loop`] and [`BindError::NoUpstream`]; then everything stays as it was.
    pub fn reconfigure(&self, settings: &ShimSettings) -> Result<(), BindError> {
        let upstreams = upstreams(settings, &self.core.own, &self.core.resolv_conf)?;
        self.core.forwarder.set_upstreams(upstreams);
        self.core.loops.look();
        self.core
            .access
            .store(Arc::new(Access::new(&settings.clients, &settings.real_address_clients)));
        self.core.ttl.store(settings.ttl, Relaxed);
        Ok(())
    }

    /// What the shim did so far.
    pub fn counters(&self) -> DnsCounters {
        self.core.counters.snapshot()
    }

    /// The same by type, code and time.
    pub fn tally(&self) -> DnsTally {
        self.core.counters.tally.snapshot()
    }

    /// How each upstream is doing, in the configured order.
    pub fn upstreams(&self) -> Vec<UpstreamHealth> {
        self.core.forwarder.health()
    }

    /// How the resolvers are doing whose queries are intercepted.
    pub fn asked_resolvers(&self) -> Vec<UpstreamHealth> {
        self.core.forwarder.asked_health()
    }

    /// Tells how many queries for a source were answered since it was first published.
    pub fn answered(&self) -> impl Fn(&SourceName) -> u64 + use<> {
        let answers = self.core.answers.load_full();
        move |source| answers.answered(source)
    }

    /// Who is to answer before other names can be said to resolve, in words; nothing once an
    /// upstream has answered anything, unless all of them loop. Until then they are asked over and
    /// over.
    pub fn awaited_upstream(&self) -> Option<String> {
        let list = |servers: &[SocketAddr]| {
            servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let upstreams = self.core.forwarder.upstreams();
        if !upstreams.is_empty() && upstreams.iter().all(|upstream| upstream.loops()) {
            let servers: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
            return Some(format!("every DNS upstream asks us in turn ({})", list(&servers)));
        }
        Some(format!(
            "no DNS upstream has answered yet ({})",
            list(&self.core.forwarder.awaited()?)
        ))
    }

    /// Why forwarding does not or may not work, in words for a person: no server left, or
    /// resolv.conf can't be read.
    pub fn upstream_problem(&self) -> Option<String> {
        self.core.forwarder.problem()
    }
}

impl Core {
    /// The end of those that still wait for an upstream a second after `stop`. They are told so:
    /// silence would cost the client a time-out.
    async fn end(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        sleep(DRAIN).await;
        tracing::debug!("queries were still waiting for an upstream when the DNS shim stopped");
        self.forwarder.give_up();
        sleep(LAST_WORDS).await;
    }

    /// Whether a client that asked our address is one that we refuse.
    pub(crate) fn is_stranger(&self, (client, own): (IpAddr, IpAddr)) -> bool {
        self.access.load().of(client, own) == Client::Stranger
    }

    /// Decides about a query and counts it. The reply is in `reply` when it is ours.
    pub(crate) fn decide(&self, query: &[u8], asker: Asker, reply: &mut Reply) -> Outcome {
        Counters::count(&self.counters.queries);
        self.counters.tally.asked(query);
        let client = self.access.load().of(asker.client, asker.own);
        if client == Client::Stranger {
            Counters::count(&self.counters.strangers);
        }
        let rate = if client == Client::Stranger { REFUSALS } else { RATE };
        if client != Client::Host && !self.quotas.admit(asker.client, rate, asker.now) {
            Counters::count(&self.counters.limited);
            return Outcome::Drop;
        }
        let outcome = if client == Client::Stranger {
            local::refuse(query, reply)
        } else {
            let terms = Terms { ttl: self.ttl.load(Relaxed), real: client == Client::Guest };
            local::answer(query, &self.answers.load(), terms, reply)
        };
        let outcome = match outcome {
            Outcome::Forward(_) if self.loops.came_back(query) => local::refuse(query, reply),
            other => other,
        };
        match outcome {
            Outcome::Reply(kind) => self.counters.replied(kind),
            Outcome::Drop => Counters::count(&self.counters.dropped),
            Outcome::Forward(_) => {}
        }
        // Names are private: they are logged only when this target is asked for by its level.
        if tracing::enabled!(target: "redirector::dns::queries", tracing::Level::TRACE) {
            let name = local::asked(query).unwrap_or_default();
            tracing::trace!(target: "redirector::dns::queries", client = %asker.client, %name, ?outcome, "a query");
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ShimSettings {
        ShimSettings {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            upstreams: vec![Upstream::System],
            clients: vec![DnsClients::Local],
            real_address_clients: vec![],
            ttl: 30,
        }
    }

    #[tokio::test]
    async fn a_resolv_conf_without_a_server_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = bind_with(&settings(), file.path()).expect_err("no server").to_string();
        assert!(
            error.contains(&file.path().display().to_string()) && error.contains("`dns.upstreams`"),
            "{error}"
        );
        let error = bind_with(&settings(), Path::new("/nonexistent/resolv.conf"))
            .expect_err("no file")
            .to_string();
        assert!(error.contains("failed to read /nonexistent/resolv.conf"), "{error}");
    }

    #[tokio::test]
    async fn reconfiguring_to_ourselves_is_refused_and_changes_nothing() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "nameserver 192.0.2.1\n").expect("written");
        let shim = bind_with(&settings(), file.path()).expect("bound");
        let own = shim.local_addrs()[0];
        let wrong = ShimSettings { upstreams: vec![Upstream::Server(own)], ttl: 1, ..settings() };
        let error = shim.publisher().reconfigure(&wrong).expect_err("a loop");
        assert!(matches!(error, BindError::Loop(address) if address == own), "{error}");
        assert_eq!(shim.core.ttl.load(Relaxed), 30);
        shim.publisher().reconfigure(&ShimSettings { ttl: 60, ..settings() }).expect("fine");
        assert_eq!(shim.core.ttl.load(Relaxed), 60);
    }
}
