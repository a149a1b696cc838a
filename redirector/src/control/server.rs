//! The server: accepts connections, limits each request in size and time, drains on shutdown.

use std::{
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixListener,
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router};
use tokio::{net::UnixStream, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    control::{
        command::{Caller, Handle},
        hand_over::HandOver,
        handlers::{self, Bounds},
        peer_cred,
        socket::{ControlSocket, SocketError},
    },
    http::{Connections, ServeLimits, accept_failed, serve_connection},
};

/// How often to look whether the socket's file was removed.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Connections that learn that there are too many.
const MAX_REFUSED: usize = 8;

/// Limits of clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a body other than an import's.
    pub body: usize,
    /// Bytes of an import's body.
    pub import: usize,
    /// Time for the head of a request to arrive, and again for its body.
    pub read: Duration,
    /// Simultaneous connections. A further one replaces the oldest that waits for its request, or
    /// waits itself; as many may wait.
    pub connections: usize,
    /// Of these, the connections of one user.
    pub connections_per_user: usize,
    /// Time for requests under way to end after shutdown has begun.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 1 << 20,
            import: 32 << 20,
            read: Duration::from_secs(10),
            connections: 64,
            connections_per_user: 48,
            drain: Duration::from_millis(500),
        }
    }
}

/// The control API's server, bound and not yet serving.
#[derive(Debug)]
pub struct Server {
    socket: ControlSocket,
    limits: Limits,
    hand_over: HandOver,
}

impl Server {
    /// Binds the socket `path` with mode 0660, replacing that of a dead agent.
    ///
    /// # Errors
    /// When a live agent listens there, when `path` is not a socket, or when the system refuses.
    pub async fn bind(path: &Path, limits: Limits) -> Result<Self, SocketError> {
        let socket = ControlSocket::bind(path).await?;
        Ok(Self { socket, limits, hand_over: HandOver::default() })
    }

    /// As [`Server::bind`], with a socket that another process has bound to `path`, if it still is.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub async fn adopt(
        path: &Path,
        limits: Limits,
        inherited: UnixListener,
    ) -> Result<Self, SocketError> {
        match ControlSocket::adopt(path, inherited).await {
            Some(socket) => Ok(Self { socket, limits, hand_over: HandOver::default() }),
            None => Self::bind(path, limits).await,
        }
    }

    /// Gives sockets to a successor by `hand_over`; if there is one at the end, the socket's file
    /// stays.
    pub fn with_hand_over(self, hand_over: HandOver) -> Self {
        Self { hand_over, ..self }
    }

    /// The listening socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.listener.as_fd()
    }

    /// Serves until `shutdown`, then waits up to [`Limits::drain`] for requests under way, and
    /// removes the socket.
    pub async fn serve(mut self, handle: Handle, shutdown: CancellationToken) {
        let limits = self.limits;
        let router = handlers::router(
            (handle, self.hand_over.clone()),
            Bounds { body: limits.body, import: limits.import, read: limits.read },
            shutdown.clone(),
        );
        let connections = Connections::new(limits.connections, limits.connections_per_user);
        let mut checks = tokio::time::interval(CHECK_EVERY);
        let refused = Connections::new(MAX_REFUSED, MAX_REFUSED);
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.socket.listener.accept() => accepted,
                _ = checks.tick() => {
                    self.socket.restore().await;
                    continue;
                }
            };
            match accepted {
                Ok((stream, _)) => {
                    // One of them waits for each that is served; others are refused.
                    let may_wait = tasks.len() < 2 * limits.connections;
                    let client =
                        self.client(stream, if may_wait { &connections } else { &refused });
                    let router = if may_wait { router.clone() } else { handlers::too_many() };
                    tasks.spawn(client.serve(router, limits.read, shutdown.clone()));
                }
                Err(error) => accept_failed("control", &error, &connections).await,
            }
            while tasks.try_join_next().is_some() {}
        }
        if self.hand_over.successor().is_some() {
            self.socket.leave();
        }
        drop(self.socket);
        let drained = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limits.drain, drained).await.is_err() {
            debug!("control requests were still under way at shutdown");
        }
    }

    fn client(&self, stream: UnixStream, connections: &Arc<Connections<u32>>) -> Client {
        let caller = peer_cred::caller(&stream);
        let is_admitted = self.socket.admits(&stream, caller);
        Client { stream, caller, is_admitted, connections: Arc::clone(connections) }
    }
}

/// One client.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    caller: Caller,
    is_admitted: bool,
    connections: Arc<Connections<u32>>,
}

impl Client {
    /// Serves its request, until it disconnects, exceeds a limit, or the agent shuts down.
    async fn serve(self, router: Router, head: Duration, shutdown: CancellationToken) {
        let Self { stream, caller, is_admitted, connections } = self;
        // All users without permission share one limit.
        let peer = if is_admitted { caller.uid } else { u32::MAX };
        let connection = connections.wait(peer).await;
        let router = if is_admitted { router } else { handlers::forbidden() };
        let router = router.layer(Extension(caller));
        let limits = ServeLimits { head, whole: None };
        let served = serve_connection(stream, router, connection, (limits, shutdown)).await;
        if let Err(error) = served {
            debug!(%caller, %error, "a control connection ended early");
        }
    }
}
