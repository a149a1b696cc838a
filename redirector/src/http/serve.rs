//! One connection: one request, within limits of memory and time.

use std::{io, time::Duration};

use axum::Router;
use hyper::{body::Incoming, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};
use tokio_util::sync::CancellationToken;

use super::connections::{Connection, Connections};

/// The most bytes of a head, and of a response that wait for the client.
const MAX_BUFFER: usize = 16 << 10;
/// Pause after a failed accept().
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Limits of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServeLimits {
    /// Time for the head of the request to arrive.
    pub(crate) head: Duration,
    /// Time until the client has its response; without a limit for streams.
    pub(crate) whole: Option<Duration>,
}

/// Serves one request, until the client has the response, exceeds a limit, or is evicted. A
/// shutdown lets a request under way end.
pub(crate) async fn serve_connection<S, P: 'static>(
    stream: S,
    router: Router,
    connection: Connection<P>,
    (limits, shutdown): (ServeLimits, CancellationToken),
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(|request: hyper::Request<Incoming>| {
        connection.on_request();
        router.call(request)
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .keep_alive(false)
        .max_buf_size(MAX_BUFFER);
    let serving = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(serving);
    let whole = time::sleep(limits.whole.unwrap_or(Duration::MAX));
    tokio::select! {
        ended = serving.as_mut() => ended,
        () = connection.evicted() => Ok(()),
        () = whole, if limits.whole.is_some() => Ok(()),
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    }
}

/// Frees a descriptor after a failed accept(), and prevents a busy loop.
pub(crate) async fn accept_failed<P: Copy + Eq>(
    listener: &'static str,
    error: &io::Error,
    connections: &Connections<P>,
) {
    tracing::warn!(listener, %error, "failed to accept a connection");
    connections.evict();
    time::sleep(ACCEPT_RETRY).await;
}
