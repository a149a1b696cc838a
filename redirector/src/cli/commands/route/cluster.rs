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
        let start = Instant::now();
        loop {
            // The route is there: a failure to read its status is no failure of the command.
            let (status, unread) = match client.status(&name).await {
                Ok(status) => (status, None),
                Err(error) => (None, Some(error_chain(&error))),
            };
            let limit = if status.is_some() { REPORT_LIMIT } else { CONTROLLER_LIMIT };
            let is_known = status.as_ref().is_some_and(is_settled);
            if is_known || start.elapsed() > limit {
                return anyhow::Ok((status, unread));
            }
            sleep(POLL).await;
        }
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
