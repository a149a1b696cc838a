//! What a command that only looks can know: the agent's state, or what the pins tell without it.

use std::net::SocketAddr;

use super::{Context, agent_paths::Place, block_on};
use crate::{
    agent,
    control::{Client, ClientError, api},
};

/// Where the shim listens when neither an agent nor a configuration file tells.
const SHIM: ([u8; 4], u16) = ([169, 254, 20, 53], 53);

/// What is known.
pub(super) struct Known {
    pub(super) status: api::Status,
    /// Where the shim listens, or would.
    pub(super) shim: Vec<SocketAddr>,
}

/// Asks the agent; one that is dead or hangs leaves its pins to be read.
pub(super) fn now(context: &Context) -> anyhow::Result<Known> {
    let status = status(&Place::find(&context.config))?;
    let shim = match &status.dns {
        Some(dns) if !dns.listen.is_empty() => dns.listen.clone(),
        _ => crate::config::load(&context.config)
            .map_or_else(|_| vec![SHIM.into()], |config| config.dns.listen),
    };
    Ok(Known { status, shim })
}

/// The status, with or without an agent.
pub(super) fn status(place: &Place) -> anyhow::Result<api::Status> {
    block_on(ask(place))?
}

/// The same, for a command that asks again and again.
pub(super) async fn ask(place: &Place) -> anyhow::Result<api::Status> {
    match Client::new(place.control_socket()).status().await {
        Ok(status) => Ok(status),
        Err(error @ ClientError::Unreachable { .. }) => {
            agent::pinned_status(&place.bpffs, &place.state_dir, agent::agent_dead())?
                .ok_or_else(|| place.explain(error))
        }
        Err(error @ ClientError::Silent { .. }) => {
            let silence = agent::agent_silent(&error, agent::running(&place.run_dir));
            Ok(agent::pinned_status(&place.bpffs, &place.state_dir, silence)?.ok_or(error)?)
        }
        Err(error) => Err(error.into()),
    }
}
