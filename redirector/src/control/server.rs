//! The server: accepts connections, limits each request in size and time, drains on shutdown.

use std::{io, path::Path, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::UnixStream, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::control::{
    command::{Caller, Handle},
    handlers::{self, Bounds},
    peer_cred,
    socket::{ControlSocket, SocketError},
};

/// Limits of clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a body other than an import's.
    pub body: usize,
    /// Bytes of an import's body.
    pub import: usize,
    /// Time for the head of a request to arrive, and again for its body.
    pub read: Duration,
    /// Simultaneous connections; more wait to be accepted.
    pub connections: usize,
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
            drain: Duration::from_millis(500),
        }
    }
}

/// The control API's server, bound and not yet serving.
#[derive(Debug)]
pub struct Server {
    socket: ControlSocket,
    limits: Limits,
}

impl Server {
    /// Binds the socket `path` with mode 0660, replacing that of a dead agent.
    ///
    /// # Errors
    /// When a live agent listens there, when `path` is not a socket, or when the system refuses.
    pub async fn bind(path: &Path, limits: Limits) -> Result<Self, SocketError> {
        Ok(Self { socket: ControlSocket::bind(path).await?, limits })
    }

    /// Serves until `shutdown`, then waits up to [`Limits::drain`] for requests under way, and
    /// removes the socket.
    pub async fn serve(self, handle: Handle, shutdown: CancellationToken) {
        let limits = self.limits;
        let router = handlers::router(
            handle,
            Bounds { body: limits.body, import: limits.import, read: limits.read },
            shutdown.clone(),
        );
        let permits = Arc::new(Semaphore::new(limits.connections));
        let mut connections = JoinSet::new();
        loop {
            let permit = tokio::select! {
                () = shutdown.cancelled() => break,
                permit = permits.clone().acquire_owned() => permit,
            };
            let permit = permit.expect("the semaphore is never closed");
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.socket.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let caller = peer_cred::caller(&stream);
                    let router = if self.socket.admits(&stream, caller) {
                        router.clone()
                    } else {
                        handlers::forbidden()
                    };
                    let (router, shutdown) = (router.layer(Extension(caller)), shutdown.clone());
                    connections.spawn(async move {
                        serve_connection(stream, caller, router, limits.read, shutdown).await;
                        drop(permit);
                    });
                }
                Err(error) => pause_after(&error).await,
            }
            while connections.try_join_next().is_some() {}
        }
        drop(self.socket);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(limits.drain, drained).await.is_err() {
            debug!("control requests were still under way at shutdown");
        }
    }
}

/// Serves one client until it disconnects, exceeds a limit, or the agent shuts down.
async fn serve_connection(
    stream: UnixStream,
    caller: Caller,
    router: Router,
    read: Duration,
    shutdown: CancellationToken,
) {
    let service = TowerToHyperService::new(router);
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(read).max_buf_size(64 << 10);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%caller, %error, "a control connection ended early");
    }
}

/// Prevents a busy loop after a failed accept, such as without free descriptors.
async fn pause_after(error: &io::Error) {
    warn!(%error, "failed to accept a control connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}
