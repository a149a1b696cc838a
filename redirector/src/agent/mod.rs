//! The agent: build, bind, run.
//!
//! | file | is |
//! |---|---|
//! | `build` | everything that can fail, before anything is served: directories, lock, state files, sockets, host, datapath |
//! | `owner` | the one task that owns the state, and what wakes it |
//! | `attach`, `cgroup_watch` | keeping the programs on cgroups that come and go |
//! | `changes` | commands and reloads: checked, leased, saved, followed, live, answered |
//! | `history` | who changed what, and taking it back |
//! | `live` | what is wanted and what serves, and bringing the one to the other |
//! | `desired` | what kernel and DNS are to hold; pure |
//! | `interception` | whose DNS goes to the shim |
//! | `probes` | knocking at backends that have failed |
//! | `events`, `callers` | what the kernel tells of single connects, with the names of those who made them, to whoever reads |
//! | `view`, `problems`, `pinned`, `scrape` | what the agent, or what it left behind, tells |
//! | `lock`, `logging`, `memory`, `notify`, `signals`, `versions`, `watch` | the process and its surroundings |
//!
//! An order holds everywhere: what comes is in the kernel before DNS answers it, what goes has left
//! DNS before it leaves the kernel.

mod attach;
mod build;
mod callers;
mod cgroup_watch;
mod changes;
mod desired;
mod events;
mod history;
mod interception;
mod live;
mod lock;
mod logging;
mod memory;
mod notify;
mod owner;
mod pinned;
mod probes;
mod problems;
mod scrape;
mod signals;
mod versions;
mod view;
mod watch;

use std::path::PathBuf;

pub(crate) use live::error_chain;
pub use lock::{LockError, is_running, running};
pub use logging::start_logging;
pub use memory::prepare as prepare_memory;
pub use pinned::{agent_dead, agent_silent, other_version, pinned_status};

use crate::config::Config;

/// Runs the agent with `config`, which was read from `path`, until SIGTERM or SIGINT. The datapath,
/// the guard and the listen addresses stay as they are then, and go on redirecting.
///
/// # Errors
/// When the agent can't start (nothing of it is left behind, and what an earlier agent left still
/// works), or a part of it fails for good.
pub async fn run(path: PathBuf, config: Config) -> anyhow::Result<()> {
    build::bind(path, config).await?.run().await
}
