//! What a test may do with a guest.

use std::time::Duration;

use anyhow::Result;

use crate::executor::Executor;
use crate::isolation::sandbox::Sandbox;
use crate::process::Finished;

/// Where a test runs programs. The rig's files and the programs of the machine are at the same
/// paths in every guest; a micro-VM has only some of them.
pub trait Guest: Sync {
    /// Runs a line of shell to its end. An error only when it could not be started, or took longer
    /// than `limit`.
    fn run(&self, line: &str, limit: Duration) -> Result<Finished>;
}

impl Guest for Sandbox {
    fn run(&self, line: &str, limit: Duration) -> Result<Finished> {
        Self::run(self, line, limit)
    }
}

impl Guest for Executor {
    fn run(&self, line: &str, limit: Duration) -> Result<Finished> {
        Self::run(self, line, limit)
    }
}
