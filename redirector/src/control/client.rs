//! The client that the command line uses.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    control::{
        api::{self, EventLine, EventQuery},
        command::MANY_ROUTES,
        error::{ApiError, ErrorBody},
        hand_over::{self, Predecessor},
    },
    route::{RawRoute, RoutePatch, SourceName},
};

/// For a whole request. Longer than the server waits for the event loop.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);
/// For the status, and until events begin: short, as these are used to find an agent that hangs.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const MAX_ANSWER: usize = 256 << 20;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent listens: none runs, or it has another `agent.run_dir`.
    #[error("no agent answers on {}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// This user may not connect to the socket.
    #[error(
        "not allowed to connect to {}: run this as root, or as a member of the socket's group",
        path.display()
    )]
    NotPermitted {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// An agent listens and does not answer.
    #[error(
        "the agent that listens on {} has not answered within {} s",
        path.display(),
        timeout.as_secs()
    )]
    Silent {
        /// The socket.
        path: PathBuf,
        /// The timeout.
        timeout: Duration,
    },
    /// The agent speaks another version.
    #[error(
        "the agent on {} speaks version {found} of the control API, this command version {}: use \
            the agent's own binary, or restart the agent with this one",
        path.display(),
        api::VERSION
    )]
    OtherVersion {
        /// The socket.
        path: PathBuf,
        /// The version in its answer.
        found: u64,
    },
    /// The agent refused, with this error.
    #[error("{}", with_remedy(.0))]
    Refused(ApiError),
    /// The answer is not valid.
    #[error("failed to {verb} the agent's answer on {}", path.display())]
    Broken {
        /// The operation.
        verb: &'static str,
        /// The socket.
        path: PathBuf,
        /// The error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A client of one agent; each call opens a connection.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client of the agent that listens on `socket`. Does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { path: socket.into() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.path
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<api::Status, ClientError> {
        self.send_within(STATUS_TIMEOUT, Method::GET, "/v1/status", None::<&()>).await
    }

    /// `GET /v1/progress`.
    pub async fn progress(&self) -> Result<api::Progress, ClientError> {
        self.get("/v1/progress").await
    }

    /// `GET /v1/routes`.
    pub async fn routes(&self) -> Result<api::RouteList, ClientError> {
        self.get("/v1/routes").await
    }

    /// `GET /v1/routes/{source}`.
    pub async fn route(&self, source: &SourceName) -> Result<api::RouteShow, ClientError> {
        self.get(&route_path(source)).await
    }

    /// `POST /v1/routes`.
    pub async fn add(&self, route: &RawRoute) -> Result<api::Changed, ClientError> {
        self.send(Method::POST, "/v1/routes", Some(route)).await
    }

    /// `PATCH /v1/routes/{source}` with the changed fields.
    pub async fn set(
        &self,
        source: &SourceName,
        patch: &RoutePatch,
    ) -> Result<api::Changed, ClientError> {
        self.send(Method::PATCH, &route_path(source), Some(patch)).await
    }

    /// `DELETE /v1/routes/{source}`.
    pub async fn remove(&self, source: &SourceName) -> Result<api::Changed, ClientError> {
        self.send(Method::DELETE, &route_path(source), None::<&()>).await
    }

    /// `POST /v1/import`.
    pub async fn import(&self, request: &api::ImportRequest) -> Result<api::Imported, ClientError> {
        self.send_many(Method::POST, "/v1/import", Some(request)).await
    }

    /// `GET /v1/history`.
    pub async fn history(&self) -> Result<api::ChangeList, ClientError> {
        self.get("/v1/history").await
    }

    /// `GET /v1/history/{number}`.
    pub async fn change(&self, number: u64) -> Result<api::ChangeShow, ClientError> {
        self.get(&format!("/v1/history/{number}")).await
    }

    /// `POST /v1/rollback`.
    pub async fn rollback(
        &self,
        request: &api::RollbackRequest,
    ) -> Result<api::RolledBack, ClientError> {
        self.send_many(Method::POST, "/v1/rollback", Some(request)).await
    }

    /// `GET /v1/export`.
    pub async fn export(&self) -> Result<api::Export, ClientError> {
        self.get("/v1/export").await
    }

    /// `GET /v1/events`.
    pub async fn events(&self, query: &EventQuery) -> Result<EventStream, ClientError> {
        let path = format!("/v1/events?{}", query.encoded());
        let begun =
            tokio::time::timeout(STATUS_TIMEOUT, self.begin(Method::GET, &path, Vec::new()));
        let (response, driver) = begun.await.map_err(|_| ClientError::Silent {
            path: self.path.clone(),
            timeout: STATUS_TIMEOUT,
        })??;
        let status = response.status();
        let body = response.into_body();
        if !status.is_success() {
            let answer = Limited::new(body, MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| self.broken("read", error))?;
            return Err(self.refused(status, &answer.to_bytes()));
        }
        Ok(EventStream { client: self.clone(), body, rest: Vec::new(), _driver: driver })
    }

    /// `POST /v1/reload`.
    pub async fn reload(&self) -> Result<api::Reloaded, ClientError> {
        self.send_many(Method::POST, "/v1/reload", None::<&()>).await
    }

    /// `POST /v1/hand-over`, and the listening sockets that the agent passes.
    pub async fn hand_over(&self) -> Result<(Predecessor, Vec<OwnedFd>), ClientError> {
        let received = async {
            let mut predecessor = self.upgrade().await?;
            match predecessor.sockets().await {
                Ok(sockets) => Ok((predecessor, sockets)),
                Err(error) => Err(self.broken("receive", error)),
            }
        };
        let silent = |_| ClientError::Silent { path: self.path.clone(), timeout: STATUS_TIMEOUT };
        tokio::time::timeout(STATUS_TIMEOUT, received).await.map_err(silent)?
    }

    async fn upgrade(&self) -> Result<Predecessor, ClientError> {
        let stream =
            UnixStream::connect(&self.path).await.map_err(|source| self.unreachable(source))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken("begin", error))?;
        let driver = tokio::spawn(async { drop(connection.with_upgrades().await) });
        let _driver = AbortOnDropHandle::new(driver);
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v1/hand-over")
            .header(header::HOST, "redirector")
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, hand_over::PROTOCOL)
            .body(Full::new(Bytes::new()))
            .map_err(|error| self.broken("ask for", error))?;
        let response =
            sender.send_request(request).await.map_err(|error| self.broken("receive", error))?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let answer = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| self.broken("read", error))?;
            return Err(self.refused(status, &answer.to_bytes()));
        }
        let upgraded =
            hyper::upgrade::on(response).await.map_err(|error| self.broken("upgrade", error))?;
        Predecessor::new(upgraded).map_err(|error| self.broken("upgrade", error))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, None::<&()>).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        self.send_within(REQUEST_TIMEOUT, method, path, body).await
    }

    /// As [`Client::send`], for a change of many routes.
    async fn send_many<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        self.send_within(REQUEST_TIMEOUT + MANY_ROUTES, method, path, body).await
    }

    async fn send_within<T: DeserializeOwned>(
        &self,
        timeout: Duration,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| self.broken("write the request for", error))?;
        let (status, answer) =
            tokio::time::timeout(timeout, self.exchange(method, path, body.unwrap_or_default()))
                .await
                .map_err(|_| ClientError::Silent { path: self.path.clone(), timeout })??;
        if status.is_success() {
            return self.parse(&answer);
        }
        Err(self.refused(status, &answer))
    }

    fn refused(&self, status: StatusCode, answer: &[u8]) -> ClientError {
        match serde_json::from_slice::<ErrorBody>(answer) {
            Ok(body) => ClientError::Refused(body.error),
            Err(_) => self.broken("parse", format!("HTTP status {status}")),
        }
    }

    /// An answer of another version is reported as such, even where it could be parsed.
    fn parse<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, ClientError> {
        let value: serde_json::Value =
            serde_json::from_slice(answer).map_err(|error| self.broken("parse", error))?;
        match value["version"].as_u64() {
            Some(found) if found != u64::from(api::VERSION) => {
                Err(ClientError::OtherVersion { path: self.path.clone(), found })
            }
            _ => serde_json::from_value(value).map_err(|error| self.broken("parse", error)),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let (response, _driver) = self.begin(method, path, body).await?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| self.broken("read", error))?;
        Ok((status, answer.to_bytes()))
    }

    /// Sends a request and returns the head of the response; the body arrives while the driver
    /// lives.
    async fn begin(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), ClientError> {
        let stream =
            UnixStream::connect(&self.path).await.map_err(|source| self.unreachable(source))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken("begin", error))?;
        let driver = AbortOnDropHandle::new(tokio::spawn(async { drop(connection.await) }));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "redirector")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken("ask for", error))?;
        let response =
            sender.send_request(request).await.map_err(|error| self.broken("receive", error))?;
        Ok((response, driver))
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted { path, source },
            _ => ClientError::Unreachable { path, source },
        }
    }

    fn broken(
        &self,
        verb: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ClientError {
        ClientError::Broken { verb, path: self.path.clone(), source: source.into() }
    }
}

/// A stream of events.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    body: Incoming,
    /// The beginning of the next line.
    rest: Vec<u8>,
    _driver: AbortOnDropHandle<()>,
}

impl EventStream {
    /// The next lines, as many as have arrived; none at the end of the stream.
    ///
    /// # Errors
    /// When the agent disconnects within a line, or sends a line that is not valid.
    pub async fn next(&mut self) -> Result<Option<Vec<EventLine>>, ClientError> {
        loop {
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|error| self.client.broken("read", error))?;
            self.rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else { continue };
            let whole: Vec<u8> = self.rest.drain(..=end).collect();
            let lines = whole
                .split(|&byte| byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(serde_json::from_slice);
            return lines
                .collect::<Result<_, _>>()
                .map(Some)
                .map_err(|error| self.client.broken("parse", error));
        }
    }
}

fn with_remedy(error: &ApiError) -> String {
    match &error.remedy {
        Some(remedy) => format!("{error}: {remedy}"),
        None => error.to_string(),
    }
}

fn route_path(source: &SourceName) -> String {
    // A source contains only letters, digits, `-`, `_`, `.` and `*`, none of which needs escaping.
    format!("/v1/routes/{source}")
}
