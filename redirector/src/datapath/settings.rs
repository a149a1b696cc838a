//! What a datapath is opened with.

use std::path::PathBuf;

use crate::pool::Pool;

/// Where the datapath lives and which addresses are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder of the pins, in a bpf file system.
    pub bpffs: PathBuf,
    /// The virtual addresses.
    pub pool: Pool,
    /// Whether to load the programs that log each decision, where this host can run them.
    pub debug_log: bool,
}
