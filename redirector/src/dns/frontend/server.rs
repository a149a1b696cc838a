//! The shim: [`bind`] opens its sockets, [`BoundShim::start`] begins to answer, and
//! [`BoundShim::serve`] serves until it is stopped.

use std::{
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    bind_error::BindError,
    handler::Handler,
    intercept_ports::{self, InterceptPorts},
    listener::Listener,
    publisher::Publisher,
    settings::ShimSettings,
    shutdown::{DRAIN_TIMEOUT, SERVFAIL_GRACE},
    tcp, udp,
};
use crate::net::{InheritedSockets, RESOLV_CONF, unanswered};

/// A shim whose sockets are open.
#[derive(Debug)]
pub struct BoundShim {
    listeners: Vec<Listener>,
    /// The listeners for intercepted DNS, by address.
    intercepted: Vec<Vec<Listener>>,
    handler: Arc<Handler>,
    /// Sockets that another process has opened, as far as none has been of use yet.
    inherited: InheritedSockets,
    /// The journals of queries that came with them.
    journals: Vec<File>,
    is_started: bool,
    tasks: Tasks,
    /// Whenever the shim ends, no task outlives it.
    _stop_on_drop: DropGuard,
}

/// Binds every address, or none. Queries that arrive before [`BoundShim::serve`] wait in the
/// sockets.
///
/// # Errors
///
/// [`BindError`], which names the address and the remedy; also if no upstream is left.
pub async fn bind(settings: &ShimSettings) -> Result<BoundShim, BindError> {
    adopt(settings, InheritedSockets::default()).await
}

/// As [`bind`], with the sockets that another process has opened, as far as their addresses are
/// in the settings. Queries wait in them already.
///
/// # Errors
///
/// As [`bind`].
pub async fn adopt(
    settings: &ShimSettings,
    inherited: InheritedSockets,
) -> Result<BoundShim, BindError> {
    bind_with(settings, inherited, Path::new(RESOLV_CONF))
}

/// As [`adopt`], with another resolv.conf.
fn bind_with(
    settings: &ShimSettings,
    mut inherited: InheritedSockets,
    resolv_conf: &Path,
) -> Result<BoundShim, BindError> {
    if settings.listen.is_empty() {
        return Err(BindError::NoAddress);
    }
    let listeners = settings
        .listen
        .iter()
        .map(|address| Listener::adopt(*address, &mut inherited))
        .collect::<Result<Vec<_>, _>>()?;
    let own: Vec<_> = listeners.iter().map(|listener| listener.address).collect();
    let upstreams = settings.open_upstreams(&own, resolv_conf)?;
    let handler = Handler::new(settings, own, upstreams, resolv_conf.into());
    let journals = inherited.take_journals();
    let tasks = Tasks::default();
    Ok(BoundShim {
        listeners,
        intercepted: Vec::new(),
        handler: Arc::new(handler),
        inherited,
        journals,
        is_started: false,
        _stop_on_drop: tasks.stop.clone().drop_guard(),
        tasks,
    })
}

impl BoundShim {
    /// The addresses with their actual ports, in the order of the settings.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    /// Opens a port for each resolver whose DNS is intercepted at sockets, given the resolver of
    /// each slot. A query for another name that arrives there goes to that resolver.
    ///
    /// # Errors
    ///
    /// [`BindError`] if one of the ports is in use, or our own queries cannot be marked.
    pub fn intercept(&mut self, by_slot: &[Option<IpAddr>]) -> Result<InterceptPorts, BindError> {
        let own = self.local_addrs();
        let (ports, listeners) = intercept_ports::open(&own, by_slot, &mut self.inherited)?;
        self.intercepted = listeners;
        self.handler.forward_listed(by_slot);
        Ok(ports)
    }

    /// The listening sockets, and the journal of queries.
    pub fn sockets(&self) -> Vec<BorrowedFd<'_>> {
        let listeners = self.listeners.iter().chain(self.intercepted.iter().flatten());
        let journal = self.handler.journal().map(|journal| journal.file().as_fd());
        listeners.flat_map(Listener::sockets).chain(journal).collect()
    }

    /// Takes the inherited sockets that are of no use.
    pub fn take_unused(&mut self) -> InheritedSockets {
        std::mem::take(&mut self.inherited)
    }

    /// A handle that changes the answers and reads the counters.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(Arc::clone(&self.handler))
    }

    /// Answers from now on at the addresses of the settings, before [`BoundShim::serve`]. The zone
    /// has to be published.
    ///
    /// # Errors
    ///
    /// If a socket cannot be used.
    pub fn start(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.is_started, true) {
            return Ok(());
        }
        let left: Vec<_> = self.journals.drain(..).flat_map(|file| unanswered(&file)).collect();
        if !left.is_empty() {
            tracing::info!(queries = left.len(), "answering what the last agent has received");
        }
        self.handler.set_unanswered(left);
        for listener in &self.listeners {
            self.tasks.spawn_listeners(std::slice::from_ref(listener), &self.handler)?;
        }
        let (watched, stop) = (Arc::clone(&self.handler), self.tasks.stop.clone());
        tokio::spawn(async move {
            stop.run_until_cancelled(watched.watch_upstreams()).await;
        });
        Ok(())
    }

    /// Answers until `shutdown` is cancelled. Forwarded queries then have a second to end.
    ///
    /// # Errors
    ///
    /// If a socket fails permanently or a task panicked.
    pub async fn serve(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        self.start().context("failed to register a DNS socket")?;
        for group in &self.intercepted {
            self.tasks
                .spawn_listeners(group, &self.handler)
                .context("failed to register a port")?;
        }
        let Tasks { sockets, connections, stop } = &mut self.tasks;
        let finished = async {
            while let Some(ended) = sockets.join_next().await {
                ended.context("a task of the DNS shim panicked")??;
            }
            connections.close();
            connections.wait().await;
            Ok(())
        };
        let stopped = async {
            shutdown.cancelled().await;
            if let Some(journal) = self.handler.journal() {
                journal.close();
            }
            stop.cancel();
            cancel_forwarding(&self.handler).await;
        };
        tokio::select! {
            result = finished => result,
            () = stopped => Ok(()),
        }
    }
}

/// What serves the sockets of a shim.
#[derive(Debug, Default)]
struct Tasks {
    sockets: JoinSet<anyhow::Result<()>>,
    connections: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Serves listeners that share a thread for UDP and the limit of TCP connections.
    fn spawn_listeners(
        &mut self,
        listeners: &[Listener],
        handler: &Arc<Handler>,
    ) -> io::Result<()> {
        let limit = tcp::ConnectionLimit::new(handler.limits());
        let mut udp_listeners = Vec::new();
        for listener in listeners {
            let (udp, tcp) = listener.endpoints()?;
            udp_listeners.push(udp);
            let server = tcp::TcpServer {
                limit: limit.clone(),
                handler: Arc::clone(handler),
                connections: self.connections.clone(),
                stop: self.stop.clone(),
            };
            self.sockets.spawn(server.serve(tcp));
        }
        let (handler, stop) = (Arc::clone(handler), self.stop.clone());
        self.sockets.spawn_blocking(move || udp::run(udp_listeners, &handler, &stop));
        Ok(())
    }
}

/// After the drain time, ends the queries that still wait for an upstream. Their clients get
/// SERVFAIL and need not wait for a time-out.
async fn cancel_forwarding(handler: &Handler) {
    sleep(DRAIN_TIMEOUT).await;
    tracing::debug!("queries were still waiting for an upstream when the DNS shim stopped");
    handler.forwarder().cancel();
    sleep(SERVFAIL_GRACE).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DnsClients, Upstream};

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
    async fn a_resolv_conf_without_a_server_is_named_in_the_error() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = bind_with(&settings(), InheritedSockets::default(), file.path())
            .expect_err("no server")
            .to_string();
        assert!(
            error.contains(&file.path().display().to_string()) && error.contains("`dns.upstreams`"),
            "{error}"
        );
        let error = bind_with(
            &settings(),
            InheritedSockets::default(),
            Path::new("/nonexistent/resolv.conf"),
        )
        .expect_err("no file")
        .to_string();
        assert!(error.contains("failed to read /nonexistent/resolv.conf"), "{error}");
    }

    #[tokio::test]
    async fn a_resolv_conf_that_is_removed_is_a_problem() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "nameserver 192.0.2.1\n").expect("written");
        let shim = bind_with(&settings(), InheritedSockets::default(), file.path()).expect("bound");
        let problem = || shim.publisher().upstream_problem();
        assert_eq!(problem(), None);
        let expected = format!("failed to read {}", file.path().display());
        drop(file);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !problem().is_some_and(|problem| problem.starts_with(&expected)) {
            assert!(std::time::Instant::now() < deadline, "{:?}", problem());
            sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    #[tokio::test]
    async fn our_own_address_as_upstream_is_refused_on_reload() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "nameserver 192.0.2.1\n").expect("written");
        let shim = bind_with(&settings(), InheritedSockets::default(), file.path()).expect("bound");
        let own = shim.local_addrs()[0];
        let wrong = ShimSettings { upstreams: vec![Upstream::Server(own)], ttl: 1, ..settings() };
        let error = shim.publisher().reconfigure(&wrong).expect_err("a loop");
        assert!(matches!(error, BindError::Loop(address) if address == own), "{error}");
        assert_eq!(shim.handler.ttl(), 30);
        shim.publisher().reconfigure(&ShimSettings { ttl: 60, ..settings() }).expect("fine");
        assert_eq!(shim.handler.ttl(), 60);
    }
}
