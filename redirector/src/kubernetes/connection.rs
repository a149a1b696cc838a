//! Connections to an API server that may fall silent: its packets may be dropped, as by a network
//! that is cut, and then nothing closes the connection of a watch.

use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::{client::legacy, rt::TokioExecutor};
use kube::{
    Client, Config,
    client::{Body, ConfigExt as _, retry::RetryPolicy},
};
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};

/// After how long without a packet the kernel asks whether the other end is there.
const IDLE: Duration = Duration::from_secs(15);
/// Between two of its questions.
const INTERVAL: Duration = Duration::from_secs(5);
/// Its questions without an answer that end a connection: after 30 s in all.
const QUESTIONS: u32 = 3;

/// A client with keepalive. Otherwise it is what `Client::try_from` makes, whose connections have
/// none.
pub(super) fn client(config: Config) -> Result<Client, kube::Error> {
    // Unsupported, which is an error of its own.
    if config.proxy_url.is_some() {
        return Client::try_from(config);
    }
    let mut tcp = legacy::connect::HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_keepalive(Some(IDLE));
    tcp.set_keepalive_interval(Some(INTERVAL));
    tcp.set_keepalive_retries(Some(QUESTIONS));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let retry = config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry()));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retry)
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(connector));
    Ok(Client::new(service, config.default_namespace))
}
