//! `/healthz` and `/readyz`, each with its reasons, `/metrics`, and the status page.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    extract::State,
    http::{HeaderName, StatusCode, header},
    routing::get,
};
use bytes::Bytes;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    event_streams::EventStreams,
    health::Health,
    metrics::{CONTENT_TYPE, Metrics},
    shared_page::SharedPage,
    status_page,
    viewer::Ends,
};
use crate::{
    control::EventHub,
    http::{Connection, Connections, ServeLimits, accept_failed, serve_connection},
};

/// The agent's event loop writes a heartbeat twice a second; after this long without one it hangs.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);

/// Limits of the connections; one peer has half of them. Each has one request.
const MAX_CONNECTIONS: usize = 128;
const MIN_CONNECTIONS: usize = 8;
/// One in this many connections may be a stream of events, so that streams keep nobody out.
const CONNECTIONS_PER_STREAM: usize = 8;
/// A scraper across the world needs a second for a request of one packet.
const LIMITS: ServeLimits =
    ServeLimits { head: Duration::from_secs(5), whole: Some(Duration::from_secs(15)) };

#[derive(Serialize)]
struct Answer {
    ok: bool,
    reasons: Vec<String>,
}

type Response = (StatusCode, Json<Answer>);

fn answer(reasons: Vec<String>) -> Response {
    let ok = reasons.is_empty();
    (
        if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
        Json(Answer { ok, reasons }),
    )
}

/// The admin listener, bound and not yet serving.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
}

impl Admin {
    /// Binds `address`.
    ///
    /// # Errors
    /// When the address is not this host's or the port is taken.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(|listener| Self { listener })
    }

    /// With a listener that another process has opened.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn adopt(listener: std::net::TcpListener) -> io::Result<Self> {
        TcpListener::from_std(listener).map(|listener| Self { listener })
    }

    /// The listening socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The bound address.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`.
    pub async fn serve(
        self,
        health: Health,
        (metrics, hub): (Metrics, EventHub),
        shutdown: CancellationToken,
    ) {
        // A sixteenth of the descriptors, so that no client takes those of DNS.
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = usize::try_from(descriptors / 16)
            .map_or(MAX_CONNECTIONS, |share| share.clamp(MIN_CONNECTIONS, MAX_CONNECTIONS));
        let connections = Connections::new(most, most / 2);
        let streams = EventStreams::new(hub, most / CONNECTIONS_PER_STREAM, shutdown.clone());
        let router = router(health, metrics, streams);
        // Aborted at shutdown rather than drained: a probe that is cut off learns as much.
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Some(connection) = connections.admit(peer.ip().to_canonical()).await {
                        tasks.spawn(serve_one((stream, peer), router.clone(), connection));
                    }
                }
                Err(error) => accept_failed("admin", &error, &connections).await,
            }
            while tasks.try_join_next().is_some() {}
        }
    }
}

async fn serve_one(
    (stream, peer): (TcpStream, SocketAddr),
    router: Router,
    connection: Connection<IpAddr>,
) {
    let never = CancellationToken::new();
    let Ok(local) = stream.local_addr() else { return };
    let router = router.layer(Extension(Ends { peer, local }));
    if let Err(error) = serve_connection(stream, router, connection, (LIMITS, never)).await {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

fn router(health: Health, metrics: Metrics, streams: EventStreams) -> Router {
    let page = status_page::router(health.clone(), metrics.clone(), streams);
    let metrics = SharedPage::new(move || {
        let metrics = metrics.clone();
        async move { metrics.scrape().await }
    });
    let metrics = Router::new().route("/metrics", get(scrape)).with_state(metrics);
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(health)
        .merge(metrics)
        .merge(page)
}

async fn healthz(State(health): State<Health>) -> Response {
    let age = health.heartbeat_age();
    answer(if age > HEARTBEAT_TIMEOUT {
        vec![format!("no heartbeat of the agent for {} s", age.as_secs())]
    } else {
        vec![]
    })
}

async fn scrape(State(page): State<SharedPage>) -> ([(HeaderName, &'static str); 1], Bytes) {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page.text().await)
}

async fn readyz(State(health): State<Health>) -> Response {
    answer(health.not_ready())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        let reading = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(5), reading)
            .await
            .expect("in time")
            .expect("readable");
        answer
    }

    #[tokio::test]
    async fn readiness_lists_what_is_missing_and_ends_with_the_agent() {
        let admin = Admin::bind("127.0.0.1:0".parse().expect("an address")).await.expect("bound");
        let address = admin.local_addr().expect("an address");
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let (requests, mut received) =
            tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<crate::observe::Snapshot>>(1);
        tokio::spawn(async move {
            while let Some(reply) = received.recv().await {
                let _ = reply.send(crate::observe::Snapshot::default());
            }
        });
        let sources = (Metrics::new(requests), EventHub::default());
        let serving = tokio::spawn(admin.serve(health.clone(), sources, shutdown.clone()));
        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("starting"), "{answer}");
        health.set_not_ready(vec![]);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let metrics = get(address, "/metrics").await;
        assert!(
            metrics.starts_with("HTTP/1.1 200") && metrics.contains("application/openmetrics-text"),
            "{metrics}"
        );
        assert!(metrics.contains("# EOF") && get(address, "/x").await.starts_with("HTTP/1.1 404"));
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(2), serving)
            .await
            .expect("in time")
            .expect("ended");
    }

    /// Ten times as many half requests as there is room for.
    #[tokio::test]
    async fn half_requests_keep_nobody_out() {
        let admin = Admin::bind("127.0.0.1:0".parse().expect("an address")).await.expect("bound");
        let address = admin.local_addr().expect("an address");
        let (requests, _received) = tokio::sync::mpsc::channel(1);
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let sources = (Metrics::new(requests), EventHub::default());
        let serving = tokio::spawn(admin.serve(health.clone(), sources, shutdown.clone()));
        let mut held = Vec::new();
        for number in 0..10 * MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("written");
            held.push(stream);
            if number % MAX_CONNECTIONS == 0 {
                health.heartbeat();
                assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
            }
        }
        let mut open = 0;
        for stream in &mut held {
            let mut byte = [0; 1];
            let reading = stream.read(&mut byte);
            if tokio::time::timeout(Duration::from_millis(1), reading).await.is_err() {
                open += 1;
            }
        }
        assert!(open <= MAX_CONNECTIONS / 2, "{open} are still open");
        shutdown.cancel();
        serving.await.expect("ended");
    }

    #[tokio::test]
    async fn an_agent_that_hangs_is_not_healthy() {
        let health = Health::default();
        health.set_heartbeat_age(Duration::from_secs(5));
        let (status, Json(answer)) = healthz(State(health.clone())).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.reasons, ["no heartbeat of the agent for 5 s"]);
        health.heartbeat();
        assert_eq!(healthz(State(health)).await.0, StatusCode::OK);
    }
}
