//! A node's report: written when it changes, within the time that the controller asks for, so
//! that thousands of nodes do not write at once.

use std::time::Duration;

use kube::{
    Api, Client, Resource as _,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::watch, time::sleep};
use tracing::warn;

use super::resources::{RedirectNode, RedirectNodeSpec};
use crate::{
    error::error_chain,
    kubernetes::{ApiError, Backoff, answer},
};

/// How often an unchanged report is sent again, in case that somebody has deleted it. The API
/// server writes nothing then.
const AGAIN: Duration = Duration::from_secs(1800);
/// The pauses after errors.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(120));

/// The pod of an agent: its report is removed with it.
#[derive(Clone, Debug)]
pub struct AgentPod {
    /// The name of its node, which is that of the report.
    pub node: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name and UID.
    pub owner: Option<(String, String)>,
}

/// A report, and within how many seconds it is sent.
pub type Reported = Option<(RedirectNodeSpec, u32)>;

/// Writes the reports until nobody sends any more.
pub async fn report(client: Client, pod: AgentPod, mut reports: watch::Receiver<Reported>) {
    let api = Api::<RedirectNode>::namespaced(client, &pod.namespace);
    let (mut backoff, mut retry) = (BACKOFF, None);
    loop {
        let again = AGAIN.mul_f64(rand::random_range(1.0..2.0));
        tokio::select! {
            changed = reports.changed() => if changed.is_err() { return },
            () = sleep(retry.unwrap_or(again)) => {}
        }
        let within = reports.borrow().as_ref().map_or(0, |(_, within)| *within);
        sleep(Duration::from_secs(within.into()).mul_f64(rand::random_range(0.0..1.0))).await;
        // Whatever has changed meanwhile is part of the same report.
        let Some((spec, _)) = reports.borrow_and_update().clone() else { continue };
        match write(&api, &pod, &spec).await {
            Ok(()) => (backoff, retry) = (BACKOFF, None),
            Err(error) => {
                warn!("failed to report; retrying: {}", error_chain(&error));
                retry = Some(backoff.pause());
            }
        }
    }
}

async fn write(
    api: &Api<RedirectNode>,
    pod: &AgentPod,
    spec: &RedirectNodeSpec,
) -> Result<(), ApiError> {
    let owners = pod
        .owner
        .iter()
        .map(|(name, uid)| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}));
    let object = json!({
        "apiVersion": RedirectNode::api_version(&()),
        "kind": RedirectNode::kind(&()),
        "metadata": {"name": pod.node, "ownerReferences": owners.collect::<Vec<_>>()},
        "spec": spec,
    });
    let (params, patch) = (PatchParams::apply("redirector-agent").force(), Patch::Apply(object));
    let patched = api.patch(&pod.node, &params, &patch);
    answer("to write this node's report", patched).await.map(drop)
}
