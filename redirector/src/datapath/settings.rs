//! The settings of a datapath.

use std::path::PathBuf;

use crate::{config::Config, pool::Pool};

/// Where the datapath is pinned, and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The directory of the pins, in a bpf file system.
    pub bpffs: PathBuf,
    /// The virtual addresses.
    pub pool: Pool,
    /// Whether to load the programs that log each decision, if this host accepts them.
    pub debug_log: bool,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            bpffs: config.agent.bpffs.clone(),
            pool: config.pool.clone(),
            debug_log: config.datapath.logs_decisions(),
        }
    }
}
