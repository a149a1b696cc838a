//! Requests to the API server, each on a connection of its own: they are seconds or minutes apart.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde::de::DeserializeOwned;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// Where the kubelet mounts a pod's token and the API server's authority.
const DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long the API server may take to begin its answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of an answer that is read as a whole: a node has a few hundred pods.
const MAX_BODY: usize = 32 << 20;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The pod's environment or its mounted files are unusable.
    #[error("failed to read {0}: {1}")]
    Credentials(String, String),
    /// There was no answer.
    #[error("the API server {0} does not answer: {1}")]
    Unreachable(String, String),
    /// The answer was not a success.
    #[error("the API server refuses {0}: {1} {2}")]
    Refused(String, StatusCode, String),
    /// The answer was not understood.
    #[error("the API server's answer to {0} is not understood: {1}")]
    Malformed(String, String),
}

impl ApiError {
    /// Whether a watch's version is too old, so that everything has to be listed again.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Refused(_, StatusCode::GONE, _))
    }

    /// Whether another writer was faster.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(_, StatusCode::CONFLICT, _))
    }
}

/// The API server, as the service account of this pod.
#[derive(Clone, Debug)]
pub struct Client {
    host: String,
    port: u16,
    tls: Arc<ClientConfig>,
    directory: PathBuf,
}

impl Client {
    /// The client of this pod; none outside a pod, and in one without a token.
    pub fn of_pod() -> Option<Result<Self, ApiError>> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let host = variable("KUBERNETES_SERVICE_HOST")?;
        let port = variable("KUBERNETES_SERVICE_PORT")?.parse().ok()?;
        let directory = Path::new(DIRECTORY);
        directory.join("token").exists().then(|| Self::new(host, port, directory))
    }

    /// A client with the token and the authority in `directory`.
    ///
    /// # Errors
    ///
    /// If there is no usable authority.
    pub fn new(host: String, port: u16, directory: &Path) -> Result<Self, ApiError> {
        let path = directory.join("ca.crt");
        let unusable = |error: String| ApiError::Credentials(path.display().to_string(), error);
        let bundle = fs::read(&path).map_err(|error| unusable(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bundle) {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { host, port, tls: Arc::new(tls), directory: directory.to_owned() })
    }

    /// The object at `path`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let response = self.request(Method::GET, path, None).await?;
        read(path, response).await
    }

    /// Changes the object at `path` by a merge patch.
    pub(super) async fn patch(
        &self,
        path: &str,
        patch: &serde_json::Value,
    ) -> Result<(), ApiError> {
        self.request(Method::PATCH, path, Some(patch)).await.map(drop)
    }

    /// The body of a successful answer to a GET, as it arrives.
    pub(super) async fn stream(&self, path: &str) -> Result<Incoming, ApiError> {
        self.request(Method::GET, path, None).await.map(Response::into_body)
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        patch: Option<&serde_json::Value>,
    ) -> Result<Response<Incoming>, ApiError> {
        let what = format!("{method} {}", path.split('?').next().unwrap_or_default());
        let sent = timeout(HEAD_TIMEOUT, self.send((method, path), patch)).await;
        let unreachable =
            |why: String| ApiError::Unreachable(format!("{}:{}", self.host, self.port), why);
        let response = match sent {
            Ok(sent) => sent.map_err(|error| unreachable(format!("{error:#}")))?,
            Err(_) => return Err(unreachable(format!("{what} took over {HEAD_TIMEOUT:?}"))),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let message = serde_json::from_slice::<serde_json::Value>(&body).ok();
        let message = message.as_ref().and_then(|body| body["message"].as_str());
        Err(ApiError::Refused(what, status, message.unwrap_or_default().to_owned()))
    }

    async fn send(
        &self,
        (method, path): (Method, &str),
        patch: Option<&serde_json::Value>,
    ) -> anyhow::Result<Response<Incoming>> {
        // The kubelet replaces it before it expires.
        let token = fs::read_to_string(self.directory.join("token"))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let name = ServerName::try_from(self.host.clone())?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the response's body.
        tokio::spawn(connection);
        let body = patch.map(ToString::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("redirector/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/merge-patch+json")
            .body(Full::new(Bytes::from(body)))?;
        Ok(sender.send_request(request).await?)
    }
}

async fn read<T: DeserializeOwned>(
    path: &str,
    response: Response<Incoming>,
) -> Result<T, ApiError> {
    let malformed = |why: String| ApiError::Malformed(path.to_owned(), why);
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|error| malformed(error.to_string()))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))
}
