//! The API of Kubernetes, where the agent runs in a pod with access to it.

use std::time::Duration;

use kube::Client;
use tokio::{sync::watch, time::timeout};
use tracing::warn;

use crate::{
    agent::attach::pod_scope::PodScope,
    cluster::AgentPod,
    error::error_chain,
    kubernetes::{self, Backoff},
};

/// How long the first attaching waits for the list: without it all pods are attached.
const FIRST_LIST: Duration = Duration::from_secs(3);

/// The name of the node, from the pod's `spec.nodeName`.
fn node() -> Option<String> {
    std::env::var("NODE_NAME").ok().filter(|name| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        !name.is_empty() && name.bytes().all(is_allowed)
    })
}

fn client() -> Option<(Client, String)> {
    let node = node()?;
    match kubernetes::of_pod()? {
        Ok(client) => Some((client, node)),
        Err(error) => {
            warn!("all pods are redirected, by whatever name: {}", error_chain(&error));
            None
        }
    }
}

/// Whether this is a node of a cluster, where a change of one agent's routes is local.
pub(crate) fn is_in_cluster() -> bool {
    node().is_some() && kubernetes::is_pod()
}

/// Whether the routes of the cluster are wanted here.
pub(crate) fn has_cluster_routes() -> bool {
    is_in_cluster() && variable("REDIRECTOR_CLUSTER_ROUTES").is_some()
}

/// What the routes of the cluster need; none where they are not wanted, or without access to the
/// API.
pub(crate) fn cluster_client() -> Option<(Client, AgentPod)> {
    if !has_cluster_routes() {
        return None;
    }
    let (client, node) = client()?;
    let namespace = client.default_namespace().to_owned();
    let owner = variable("POD_NAME").zip(variable("POD_UID"));
    Some((client, AgentPod { node, namespace, owner }))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Begins to follow the pods of this node.
pub(crate) fn follow() -> PodScope {
    let Some((client, node)) = client() else { return PodScope::new(None) };
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(kubernetes::follow(client, node, sender));
    PodScope::new(Some(receiver))
}

/// Waits until the pods are listed, if the API server answers soon enough.
pub(crate) async fn first_list(pods: &mut PodScope) {
    if timeout(FIRST_LIST, pods.listed()).await.is_err() {
        warn!("the API server has not listed the pods within {FIRST_LIST:?}: all are redirected");
    }
}

/// Removes the taint that keeps jobs away from a new node, now that the agent serves. Where the
/// agent may not change nodes, nothing is asked for.
pub(crate) fn remove_startup_taint() {
    /// A new node's API server may be far away and busy.
    const BACKOFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));
    if std::env::var_os("REDIRECTOR_STARTUP_TAINT").is_none() {
        return;
    }
    let Some((client, node)) = client() else { return };
    tokio::spawn(async move {
        let mut backoff = BACKOFF;
        loop {
            match kubernetes::remove_taint(&client, &node).await {
                Ok(_) => return,
                Err(error) => warn!(
                    node,
                    taint = kubernetes::TAINT,
                    "failed to remove the start-up taint; retrying: {}",
                    error_chain(&error)
                ),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    });
}
