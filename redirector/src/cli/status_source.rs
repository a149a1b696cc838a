//! The status that commands print: from the agent, or from the pinned maps without it.

use std::net::SocketAddr;

use super::{
    agent_paths::{self, AgentPaths},
    context::{Context, block_on},
};
use crate::{
    agent,
    config::{self, Dns},
    control::{Client, ClientError, api},
};

/// The status, and where the shim listens or would.
pub(super) struct Snapshot {
    pub(super) status: api::Status,
    pub(super) shim: Vec<SocketAddr>,
}

/// Reads both. The shim's addresses come from the agent, else from the configuration.
pub(super) fn snapshot(context: &Context) -> anyhow::Result<Snapshot> {
    let status = status(&context.agent_paths()?)?;
    let shim = match &status.dns {
        Some(dns) if !dns.listen.is_empty() => dns.listen.clone(),
        _ => {
            let configured = config::load(context.config()).map(|config| config.dns);
            configured.unwrap_or_else(|_| Dns::default()).listen
        }
    };
    Ok(Snapshot { status, shim })
}

/// The status from the agent; from its pins while it is dead or hangs.
pub(super) fn status(paths: &AgentPaths) -> anyhow::Result<api::Status> {
    block_on(fetch(paths))?
}

/// The same inside a runtime.
pub(super) async fn fetch(paths: &AgentPaths) -> anyhow::Result<api::Status> {
    let pinned = |problem| agent::pinned_status(&paths.bpffs, &paths.state_dir, problem);
    match Client::new(paths.control_socket()).status().await {
        Ok(status) => Ok(status),
        Err(error @ ClientError::Unreachable { .. }) => {
            pinned(agent::agent_dead())?.ok_or_else(|| agent_paths::explain(paths, error))
        }
        Err(error @ ClientError::Silent { .. }) => {
            let silent = agent::agent_silent(&error, agent::running(&paths.run_dir));
            Ok(pinned(silent)?.ok_or(error)?)
        }
        Err(error) => Err(error.into()),
    }
}
