//! `/healthz` and `/readyz`, each with its reasons, and `/metrics`.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, StatusCode, header},
    routing::get,
};
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::{CONTENT_TYPE, Metrics};

/// The agent's event loop writes a heartbeat twice a second; after this long without one it hangs.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);

/// Liveness and readiness of the agent.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<HealthState>>);

#[derive(Debug)]
struct HealthState {
    heartbeat_at: Instant,
    not_ready: Vec<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(HealthState {
            heartbeat_at: Instant::now(),
            not_ready: vec!["starting".into()],
        })))
    }
}

impl Health {
    /// Records a heartbeat of the event loop.
    pub fn heartbeat(&self) {
        self.state().heartbeat_at = Instant::now();
    }

    /// Sets why the agent is not ready; empty when it is.
    pub fn set_not_ready(&self, reasons: Vec<String>) {
        self.state().not_ready = reasons;
    }

    fn state(&self) -> MutexGuard<'_, HealthState> {
        self.0.lock()
    }
}

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

    /// The bound address.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`.
    pub async fn serve(self, health: Health, metrics: Metrics, shutdown: CancellationToken) {
        let metrics = Router::new().route("/metrics", get(scrape)).with_state(metrics);
        let router = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .with_state(health)
            .merge(metrics);
        // Dropped at shutdown rather than drained: a probe that is cut off learns as much.
        tokio::select! {
            ended = async { axum::serve(self.listener, router).await } => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the admin listener has ended");
                }
            }
            () = shutdown.cancelled() => {}
        }
    }
}

async fn healthz(State(health): State<Health>) -> Response {
    let age = health.state().heartbeat_at.elapsed();
    answer(if age > HEARTBEAT_TIMEOUT {
        vec![format!("no heartbeat of the agent for {} s", age.as_secs())]
    } else {
        vec![]
    })
}

async fn scrape(State(metrics): State<Metrics>) -> ([(HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.scrape().await)
}

async fn readyz(State(health): State<Health>) -> Response {
    answer(health.state().not_ready.clone())
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
        let serving =
            tokio::spawn(admin.serve(health.clone(), Metrics::new(requests), shutdown.clone()));
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
        assert!(metrics.contains("# EOF") && get(address, "/").await.starts_with("HTTP/1.1 404"));
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(2), serving)
            .await
            .expect("in time")
            .expect("ended");
    }

    #[tokio::test]
    async fn an_agent_that_hangs_is_not_healthy() {
        let health = Health::default();
        health.state().heartbeat_at = Instant::now()
            .checked_sub(Duration::from_secs(5))
            .expect("the machine has been up that long");
        let (status, Json(answer)) = healthz(State(health.clone())).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.reasons, ["no heartbeat of the agent for 5 s"]);
        health.heartbeat();
        assert_eq!(healthz(State(health)).await.0, StatusCode::OK);
    }
}
