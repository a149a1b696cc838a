//! One connection: one request, within limits of memory and time.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use hyper::{body::Incoming, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use parking_lot::Mutex;
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
    /// Time until the client has its response; `None` without a limit.
    pub(crate) whole: Option<Duration>,
}

/// When a connection is closed, whatever its client does. A handler finds it among the extensions
/// of its request, and may put it off.
#[derive(Clone, Debug)]
pub(crate) struct Lifetime(Arc<Mutex<Option<Instant>>>);

impl Lifetime {
    fn new(limit: Option<Duration>) -> Self {
        Self(Arc::new(Mutex::new(limit.map(|limit| Instant::now() + limit))))
    }

    /// Puts the end off to `end`, if there is one.
    pub(crate) fn extend_to(&self, end: Instant) {
        if let Some(ends_at) = self.0.lock().as_mut() {
            *ends_at = end.max(*ends_at);
        }
    }

    async fn ended(&self) {
        loop {
            let ends_at = *self.0.lock();
            match ends_at {
                None => std::future::pending().await,
                Some(ends_at) if ends_at <= Instant::now() => return,
                Some(ends_at) => time::sleep_until(ends_at.into()).await,
            }
        }
    }
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
    connection.on_begun();
    let router = TowerToHyperService::new(router);
    let lifetime = Lifetime::new(limits.whole);
    let service = hyper::service::service_fn(|mut request: hyper::Request<Incoming>| {
        connection.on_request();
        request.extensions_mut().insert(lifetime.clone());
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
    tokio::select! {
        ended = serving.as_mut() => ended,
        () = connection.evicted() => Ok(()),
        () = lifetime.ended() => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_ends_when_nobody_puts_it_off_any_more() {
        let began = Instant::now();
        let lifetime = Lifetime::new(Some(Duration::from_millis(10)));
        let handle = lifetime.clone();
        tokio::spawn(async move {
            for step in 1..=20 {
                handle.extend_to(began + Duration::from_millis(10 + 20 * step));
                time::sleep(Duration::from_millis(5)).await;
            }
        });
        tokio::task::yield_now().await;
        time::timeout(Duration::from_secs(60), lifetime.ended()).await.expect("ends");
        assert!(began.elapsed() >= Duration::from_millis(30), "{:?}", began.elapsed());
        let unlimited = Lifetime::new(None);
        unlimited.extend_to(began);
        assert!(time::timeout(Duration::from_millis(20), unlimited.ended()).await.is_err());
    }
}
