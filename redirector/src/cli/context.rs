//! What every command gets: the configuration's path, and the way to the agent.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::agent_paths::{self, AgentPaths};
use crate::{
    config,
    control::{Client, ClientError},
};

/// What every command gets.
#[derive(Debug)]
pub(super) struct Context {
    config: PathBuf,
}

impl Context {
    pub(super) fn new(config: PathBuf) -> Self {
        Self { config }
    }

    /// The path of the configuration file.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// Where the agent keeps its socket, state and pins.
    pub(super) fn agent_paths(&self) -> anyhow::Result<AgentPaths> {
        Ok(config::agent_paths(&self.config)?)
    }

    /// Sends a request to the agent. The error of an absent agent distinguishes a datapath that
    /// still works from one that is not there.
    pub(super) fn ask<T>(
        &self,
        request: impl AsyncFnOnce(Client) -> Result<T, ClientError>,
    ) -> anyhow::Result<T> {
        let paths = self.agent_paths()?;
        let client = Client::new(paths.control_socket());
        block_on(request(client))?.map_err(|error| agent_paths::explain(&paths, error))
    }
}

/// Runs a future to its end on this thread.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    Ok(runtime.block_on(future))
}
