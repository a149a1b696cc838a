//! The agent: build, bind, run.
//!
//! | file | is |
//! |---|---|
//! | `startup` | everything that can fail, before anything is served: directories, lock, state files, sockets, host, datapath |
//! | `event_loop` | the one task that owns the state, and what wakes it |
//! | `changes` | commands, reloads and rollbacks |
//! | `state` | what is wanted and what serves, and bringing the one to the other |
//! | `attach` | keeping the programs on cgroups that come and go |
//! | `interception` | whose DNS goes to the shim |
//! | `probes` | probing backends that have failed |
//! | `events` | events of single connects, with names instead of numbers |
//! | `views` | the state in the shapes of the control API and the metrics |
//! | `process` | the process and its surroundings |
//!
//! An order holds everywhere: what comes is in the kernel before DNS answers it, what goes has left
//! DNS before it leaves the kernel.

mod attach;
mod changes;
mod event_loop;
mod events;
mod interception;
mod probes;
mod process;
mod startup;
mod state;
mod views;

use std::path::PathBuf;

pub use process::{
    lock::{LockError, is_running, running},
    logging::start_logging,
    malloc::prepare as prepare_memory,
};
pub use views::offline_status::{agent_dead, agent_silent, other_version, pinned_status};

use crate::config::Config;

/// Runs the agent with `config`, which was read from `path`, until SIGTERM or SIGINT. The datapath,
/// the guard and the listen addresses stay as they are then, and go on redirecting.
///
/// # Errors
/// When the agent can't start (nothing of it is left behind, and what an earlier agent left still
/// works), or a part of it fails for good.
pub async fn run(path: PathBuf, config: Config) -> anyhow::Result<()> {
    startup::bind(path, config).await?.run().await
}
