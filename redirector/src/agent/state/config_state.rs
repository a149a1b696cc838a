//! The configuration in force, and the outcome of the last reload.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tracing::warn;

use crate::{
    agent::process::config_watch::FileWatch,
    config::{Accepted, Config, ConfigErrors},
    error::error_chain,
};

/// The configuration in force, and the outcome of the last reload.
pub(crate) struct ConfigState {
    path: PathBuf,
    watch: FileWatch,
    current: Accepted,
    /// Its addresses and directories stay in use until a restart.
    at_start: Config,
    error: Option<String>,
    restart_needed: Vec<String>,
    loaded_at: Timestamp,
}

impl ConfigState {
    /// The configuration that the agent starts with, and why it is not that of the file `path`, if
    /// it is not.
    pub(crate) fn new(
        path: PathBuf,
        watch: FileWatch,
        (current, error): (Accepted, Option<String>),
    ) -> Self {
        Self {
            path,
            watch,
            at_start: current.config.clone(),
            current,
            error,
            restart_needed: Vec::new(),
            loaded_at: Timestamp::now(),
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration of the last successful reload.
    pub(crate) fn current(&self) -> &Config {
        &self.current.config
    }

    /// The configuration that the agent was started with.
    pub(crate) fn at_start(&self) -> &Config {
        &self.at_start
    }

    /// Why the last reload failed.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Keys whose new value takes effect after a restart.
    pub(crate) fn restart_needed(&self) -> &[String] {
        &self.restart_needed
    }

    /// When the configuration in force was read.
    pub(crate) fn loaded_at(&self) -> Timestamp {
        self.loaded_at
    }

    /// Whether the file has changed since it was last read, and is not being written.
    pub(crate) fn has_file_changed(&mut self) -> bool {
        self.watch.poll()
    }

    /// Reads the file.
    pub(crate) fn load(&mut self) -> Result<Accepted, ConfigErrors> {
        self.watch.mark_read();
        self.current.read_next(&self.path)
    }

    /// Puts `next` in force.
    pub(crate) fn accept(&mut self, next: Accepted) {
        self.restart_needed = restart_needed(&self.at_start, &next.config);
        self.current = next;
        self.error = None;
        self.loaded_at = Timestamp::now();
        self.save_copy();
    }

    /// Keeps a copy of the configuration in force, for a start while the file is invalid. A failure
    /// is only logged: the copy is written again with the next configuration.
    pub(crate) fn save_copy(&self) {
        if self.error.is_none()
            && let Err(error) = self.current.save_copy(&self.path)
        {
            warn!("failed to keep a copy of the configuration: {}", error_chain(&error));
        }
    }

    /// Keeps the configuration in force; the new one has an `error`.
    pub(crate) fn reject(&mut self, error: String) {
        self.error = Some(error);
    }
}

/// Keys whose new value the running agent cannot apply.
fn restart_needed(running: &Config, new: &Config) -> Vec<String> {
    let keys = [
        ("agent.state_dir", running.agent.state_dir != new.agent.state_dir),
        ("agent.run_dir", running.agent.run_dir != new.agent.run_dir),
        ("agent.bpffs", running.agent.bpffs != new.agent.bpffs),
        ("agent.admin", running.agent.admin != new.agent.admin),
        ("pool", running.pool != new.pool),
        ("dns", running.dns != new.dns),
        (
            "datapath.debug_log",
            !running.datapath.debug_flag && running.datapath.debug_log != new.datapath.debug_log,
        ),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned()).collect()
}
