//! `route add --cluster` and `route remove --cluster`: a `RedirectRoute`, from any machine with a
//! kubeconfig.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::sleep;

use crate::{
    cli::{context::block_on, exit::Exit, io::Env, output::OutputArgs},
    cluster::{self, ClusterClient, RouteStatus},
    error::error_chain,
    kubernetes,
    route::{RawRoute, SourceName},
};

/// How long is waited for the nodes' reports. A route is live before it is reported.
const REPORT_LIMIT: Duration = Duration::from_secs(10);
/// How long is waited for a controller.
const CONTROLLER_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(250);

/// What a change of the cluster's routes has done.
#[derive(Debug, Serialize)]
struct ClusterChanged {
    version: u32,
    change: &'static str,
    /// The name of the RedirectRoute.
    name: String,
    source: String,
    nodes: u32,
    applied: u32,
    failing: u32,
    warnings: Vec<String>,
}

/// Adds a route to the cluster.
pub(super) fn add(
    env: &mut Env<'_>,
    output: OutputArgs,
    route: &RawRoute,
    source: &SourceName,
) -> anyhow::Result<Exit> {
    let name = cluster::object_name(source);
    let (status, unread) = block_on(async {
        let client = ClusterClient::new(kubernetes::infer().await?);
        client.add(&name, route).await?;
        anyhow::Ok(added_status(&client, &name).await)
    })??;
    let mut warnings = Vec::new();
    match (&status, unread) {
        (None, Some(error)) => {
            warnings.push(format!("the route was added, and its status could not be read: {error}"))
        }
        (None, None) => warnings.push(
            "no controller has seen it: install the chart with `controller.enabled`, or see \
                `kubectl logs deploy/redirector-controller`"
                .to_owned(),
        ),
        (Some(status), _) => warnings.extend(problems(status)),
    }
    let is_refused = status.as_ref().is_some_and(|status| !status.is_accepted());
    let status = status.unwrap_or_default();
    let changed = ClusterChanged {
        version: 1,
        change: "added",
        name,
        source: source.to_string(),
        nodes: status.nodes,
        applied: status.applied,
        failing: status.failing,
        warnings,
    };
    print(env, output, &changed)?;
    Ok(if is_refused { Exit::Failed } else { Exit::Done })
}

/// The status of a route that was added, once it is settled or the time for it is over, and why it
/// could not be read: the route is there, so that is no failure of the command.
async fn added_status(client: &ClusterClient, name: &str) -> (Option<RouteStatus>, Option<String>) {
    let start = Instant::now();
    loop {
        let (status, unread) = match client.status(name).await {
            Ok(status) => (status, None),
            Err(error) => (None, Some(error_chain(&error))),
        };
        let limit = if status.is_some() { REPORT_LIMIT } else { CONTROLLER_LIMIT };
        let is_known = status.as_ref().is_some_and(is_settled);
        if is_known || start.elapsed() > limit {
            return (status, unread);
        }
        sleep(POLL).await;
    }
}

/// Removes a route from the cluster.
pub(super) fn remove(
    env: &mut Env<'_>,
    output: OutputArgs,
    source: &SourceName,
) -> anyhow::Result<Exit> {
    let name = block_on(async {
        let client = ClusterClient::new(kubernetes::infer().await?);
        anyhow::Ok(client.remove(source).await?)
    })??;
    let Some(name) = name else {
        return Err(Exit::Failed.because(format!(
            "no RedirectRoute has the source `{source}`: `kubectl get redirectroutes` lists all"
        )));
    };
    let changed = ClusterChanged {
        version: 1,
        change: "removed",
        name,
        source: source.to_string(),
        nodes: 0,
        applied: 0,
        failing: 0,
        warnings: Vec::new(),
    };
    print(env, output, &changed)?;
    Ok(Exit::Done)
}

/// Whether there is nothing to wait for: it is refused, or every node has reported.
fn is_settled(status: &RouteStatus) -> bool {
    !status.is_accepted() || (status.nodes > 0 && status.applied + status.failing == status.nodes)
}

fn problems(status: &RouteStatus) -> Vec<String> {
    if let Some(refused) = status.refusal() {
        return vec![format!("the controller refuses it: {refused}")];
    }
    let failing = status.failing_nodes.iter();
    let mut problems: Vec<_> =
        failing.map(|failing| format!("{}: {}", failing.node, failing.reason)).collect();
    if status.applied + status.failing < status.nodes {
        problems.push(format!(
            "{} of {} nodes have not reported yet: `kubectl get redirectroutes` shows when they do",
            status.nodes - status.applied - status.failing,
            status.nodes
        ));
    }
    problems
}

fn print(env: &mut Env<'_>, output: OutputArgs, changed: &ClusterChanged) -> anyhow::Result<()> {
    output.print(env, changed, |env| {
        let ClusterChanged { change, source, name, nodes, applied, .. } = changed;
        if *change == "added" {
            writeln!(
                env.out,
                "added {source} to the cluster as {name}: live on {applied} of {nodes} nodes"
            )
        } else {
            writeln!(env.out, "removed {source} ({name}) from the cluster")
        }
    })?;
    for warning in &changed.warnings {
        env.warn(warning)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::{Json, Router, http::StatusCode, routing::get};
    use kube::Client;
    use serde_json::{Value, json};

    use super::*;

    /// A route that one of one node has applied.
    fn applied() -> Value {
        json!({
            "apiVersion": "redirector.dev/v1alpha1",
            "kind": "RedirectRoute",
            "metadata": {"name": "a", "generation": 1},
            "spec": {"source": "a.internal", "destination": "203.0.113.7"},
            "status": {
                "observedGeneration": 1,
                "nodes": 1,
                "applied": 1,
                "conditions": [{
                    "type": "Accepted",
                    "status": "True",
                    "reason": "Accepted",
                    "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            },
        })
    }

    #[tokio::test]
    async fn a_status_that_cannot_be_read_once_is_read_again() {
        static WAS_ASKED: AtomicBool = AtomicBool::new(false);
        let answer = async || match WAS_ASKED.swap(true, Ordering::Relaxed) {
            true => Ok(Json(applied())),
            false => Err(StatusCode::INTERNAL_SERVER_ERROR),
        };
        let path = "/apis/redirector.dev/v1alpha1/redirectroutes/a";
        let api = Router::new().route(path, get(answer));
        let client = ClusterClient::new(Client::new(api, "default"));
        let (status, unread) = added_status(&client, "a").await;
        assert_eq!((status.expect("a status").applied, unread), (1, None));
    }
}
