//! The agent: startup, event loop, shutdown.
//!
//! | module | contains |
//! |---|---|
//! | `standby` | waiting for the end of a running agent |
//! | `first_answers` | what the shim answers before a successor's datapath is open |
//! | `startup` | everything that can fail, before anything is served |
//! | `event_loop` | the one task that changes the state |
//! | `changes` | commands, imports, rollbacks and reloads |
//! | `views` | the state in the shapes of the control API and the metrics |
//! | `state` | the state, and bringing kernel and DNS to the desired one |
//! | `attach` | attaching to cgroups that come and go |
//! | `interception` | which DNS queries of executors go to the shim |
//! | `backend_health`, `probes` | probing unhealthy backends |
//! | `pods` | the pods of this node, in Kubernetes |
//! | `events` | events of single connects |
//! | `decision_log` | what the programs log, on request |
//! | `process` | lock, log, signals, service manager |
//!
//! One order holds everywhere: a route is added to the kernel before DNS, and removed from DNS
//! before the kernel.

mod attach;
mod backend_health;
mod changes;
mod decision_log;
mod event_loop;
mod events;
mod first_answers;
mod interception;
mod pods;
mod probes;
mod process;
mod standby;
mod startup;
mod state;
mod views;

use std::path::PathBuf;

pub(crate) use attach::interface_roles::{Surroundings, decide};
pub use process::{
    lock::{LockError, Role, is_running, role_here, running},
    logging::{StandardError, flush_log, start_logging},
    malloc::prepare as prepare_memory,
};
pub use standby::WhenTaken;
pub use state::healing::end_restoring;
pub use views::offline_status::{agent_dead, agent_silent, other_version, pinned_status};

use crate::config::{Accepted, ConfigErrors};

/// Runs the agent with the configuration of `path`, or with an earlier one and the errors of the
/// file, until SIGTERM or SIGINT. The datapath, the guard and the listen addresses then stay as
/// they are and keep redirecting.
///
/// # Errors
/// When the agent cannot start (it then leaves nothing behind, and what an earlier agent left still
/// works), or a part of it fails for good.
pub async fn run(
    path: PathBuf,
    config: (Accepted, Option<ConfigErrors>),
    when_taken: WhenTaken,
) -> anyhow::Result<()> {
    match standby::wait(&path, config, when_taken).await? {
        Some((config, inheritance)) => startup::bind(path, config, inheritance).await?.run().await,
        None => Ok(()),
    }
}
