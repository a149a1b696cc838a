//! The API server, as the service account of this pod, and why a request to it failed.

use std::time::Duration;

use kube::{
    Config,
    config::{InClusterError, InferConfigError},
};
use tokio::time::timeout;

use super::connection;

/// How long the API server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one that answers at once may take to do so.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection that is silent for longer is broken: a watch is shorter.
const READ_TIMEOUT: Duration = Duration::from_secs(310);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The pod's environment or its mounted files are unusable.
    #[error("failed to use this pod's service account")]
    InCluster(#[from] InClusterError),
    /// The client cannot be made.
    #[error("failed to prepare requests to the API server")]
    Client(#[source] kube::Error),
    /// The kubeconfig is unusable, and this is no pod.
    #[error("failed to find the cluster: set KUBECONFIG, or run this in a pod")]
    Kubeconfig(#[from] InferConfigError),
    /// The custom resources are missing.
    #[error("this cluster has no RedirectRoutes: install the chart with `controller.enabled`")]
    NoRoutes,
    /// There was no answer.
    #[error("the API server does not answer {what} within {} s", limit.as_secs())]
    Silent {
        /// The request.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The answer was not a success.
    #[error("the API server refuses {what}: {} {}", status.code, status.message)]
    Refused {
        /// The request.
        what: String,
        /// The answer.
        status: Box<kube::core::Status>,
    },
    /// A list without an end.
    #[error("the API server's answer {0} does not end")]
    Endless(String),
    /// The request was not answered, or the answer was not understood.
    #[error("{what} failed")]
    Failed {
        /// The request.
        what: String,
        /// Why.
        source: kube::Error,
    },
}

impl ApiError {
    /// The error of the request `what`.
    pub(crate) fn of(what: &str, error: kube::Error) -> Self {
        let what = what.to_owned();
        match error {
            kube::Error::Api(status) => Self::Refused { what, status },
            source => Self::Failed { what, source },
        }
    }

    /// The code of the answer.
    fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(status.code),
            _ => None,
        }
    }

    /// Whether a watch's version is too old, so that everything has to be listed again.
    pub(crate) fn is_gone(&self) -> bool {
        self.code() == Some(410)
    }

    /// Whether the object, or its kind, does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        self.code() == Some(404)
    }

    /// The same, if it is not that the API server does not know our kinds.
    pub(crate) fn of_resource(self) -> Self {
        if self.is_missing() { Self::NoRoutes } else { self }
    }

    /// Whether another writer was faster.
    pub(crate) fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }
}

/// Whether this process runs in a pod.
pub fn is_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty())
}

/// The client of this pod; none outside a pod, and in one without a token.
pub fn of_pod() -> Option<Result<kube::Client, ApiError>> {
    /// Where the kubelet mounts it.
    const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    if !is_pod() || !std::path::Path::new(TOKEN).exists() {
        return None;
    }
    Some(Config::incluster().map_err(ApiError::from).and_then(client))
}

/// The client of the kubeconfig, or else of this pod.
///
/// # Errors
///
/// If there is neither, or it is unusable.
pub async fn infer() -> Result<kube::Client, ApiError> {
    client(Config::infer().await?)
}

/// A client with limits that fit watches.
///
/// # Errors
///
/// If the configuration's certificates or tokens are unusable.
fn client(mut config: Config) -> Result<kube::Client, ApiError> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    connection::client(config).map_err(ApiError::Client)
}

/// The answer to a request that is answered at once.
pub(crate) async fn answer<T>(
    what: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiError> {
    match timeout(ANSWER_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| ApiError::of(what, error)),
        Err(_) => Err(ApiError::Silent { what: what.to_owned(), limit: ANSWER_TIMEOUT }),
    }
}
