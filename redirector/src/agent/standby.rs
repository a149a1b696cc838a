//! A second agent, which prepares everything that does not disturb the running one, holds its
//! sockets, and continues when that one has ended.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::{
    agent::{
        attach::pod_scope::PodScope,
        interception, pods,
        process::{
            lock::{self, StandbyLock},
            signals::{Signal, Signals},
            systemd,
        },
    },
    config::{Accepted, Config, ConfigErrors},
    control::{Client, ClientError, Predecessor},
    datapath::{Preloaded, Settings},
    net::InheritedSockets,
};

/// What `redirector run` does if another agent runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenTaken {
    /// Refuse to start.
    #[default]
    Refuse,
    /// Wait until it ends, however that comes.
    Wait,
    /// Ask it to end as soon as this one is ready.
    TakeOver,
}

/// What an agent gets from the one before it.
#[derive(Default)]
pub(crate) struct Inheritance {
    /// Its sockets.
    pub(crate) sockets: InheritedSockets,
    /// The programs, loaded beside those that serve.
    pub(crate) preloaded: Option<Preloaded>,
    /// The pods of this node, which it has followed while it waited.
    pub(crate) pods: Option<PodScope>,
    /// Shows that this agent is ready, until it is the agent.
    pub(crate) ready: Option<StandbyLock>,
    /// Since when this agent has waited for the end of that one; none if the service manager has
    /// kept the sockets.
    pub(crate) waiting_since: Option<Instant>,
}

/// How often to look whether the running agent serves its control socket.
const RETRY: Duration = Duration::from_millis(100);
/// How long an agent may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often to say that the running agent has not ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits, if another agent runs and `when_taken` allows it. Returns the configuration and what is
/// inherited; none if a signal ends the wait.
pub(crate) async fn wait(
    path: &Path,
    accepted: (Accepted, Option<ConfigErrors>),
    when_taken: WhenTaken,
) -> anyhow::Result<Option<((Accepted, Option<ConfigErrors>), Inheritance)>> {
    let config = &accepted.0.config;
    let run_dir = &config.agent.run_dir;
    if when_taken == WhenTaken::Refuse || !lock::is_running(run_dir) {
        let sockets = systemd::stored_sockets();
        return Ok(Some((accepted, Inheritance { sockets, ..Inheritance::default() })));
    }
    let mut signals = Signals::listen()?;
    info!(pid = lock::running(run_dir), "waiting for the sockets of the running agent");
    let inheritance = tokio::select! {
        inheritance = inherit(config, when_taken) => inheritance?,
        () = terminated(&mut signals) => {
            info!("stopping; the other agent continues");
            return Ok(None);
        }
    };
    // It may have changed while this agent waited.
    let debug_flag = config.datapath.debug_flag;
    let mut next = Accepted::at_start(path).unwrap_or_else(|errors| (accepted.0, Some(errors)));
    next.0.config.datapath.debug_flag = debug_flag;
    Ok(Some((next, inheritance)))
}

/// Prepares for the end of the running agent, and waits for it.
async fn inherit(config: &Config, when_taken: WhenTaken) -> anyhow::Result<Inheritance> {
    let run_dir = &config.agent.run_dir;
    let waiting_since = Some(Instant::now());
    // First: from now on no query is lost, even if the other agent dies.
    let Some((mut predecessor, sockets)) = connect(config).await? else {
        return Ok(Inheritance::default());
    };
    let mut pods = pods::follow();
    let (preloaded, ready) = match prepare(config, &mut pods).await {
        Ok((preloaded, ready)) => {
            report_ready(&mut predecessor, when_taken).await;
            (preloaded, Some(ready))
        }
        // Nobody else is left; what is missing is made at the start.
        Err(error) if !lock::is_running(run_dir) => {
            warn!("the other agent has ended; starting as the only one, although {error:#}");
            (None, None)
        }
        Err(error) => return Err(error),
    };
    while timeout(PATIENCE, predecessor.ended()).await.is_err() {
        if when_taken == WhenTaken::TakeOver {
            let pid = lock::running(run_dir);
            warn!(pid, "the running agent was asked to end and has not: kill it if it hangs");
        }
    }
    Ok(Inheritance { sockets, preloaded, pods: Some(pods), waiting_since, ready })
}

/// Loads the programs, lists the pods, and shows that this agent is ready.
async fn prepare(
    config: &Config,
    pods: &mut PodScope,
) -> anyhow::Result<(Option<Preloaded>, StandbyLock)> {
    let (preloaded, ()) = tokio::join!(preload(config), pods::first_list(pods));
    Ok((preloaded?, StandbyLock::acquire(&config.agent.run_dir)?))
}

/// The running agent, which may still be starting, and its sockets; none if it has ended.
async fn connect(config: &Config) -> anyhow::Result<Option<(Predecessor, InheritedSockets)>> {
    let client = Client::new(config.agent.control_socket());
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let error = match client.hand_over().await {
            Ok((predecessor, sockets)) => {
                return Ok(Some((predecessor, InheritedSockets::new(sockets))));
            }
            Err(error) => error,
        };
        // An agent that dies closes its connections before its locks.
        tokio::time::sleep(RETRY).await;
        if !lock::is_running(&config.agent.run_dir) {
            return Ok(None);
        }
        let may_be_starting =
            matches!(error, ClientError::Unreachable { .. } | ClientError::Silent { .. });
        if !may_be_starting || Instant::now() >= deadline {
            return Err(error).context("the running agent does not hand its sockets over");
        }
    }
}

/// Loads the programs; none if that has to wait for the end of the other agent. After a failure the
/// other one had better continue.
async fn preload(config: &Config) -> anyhow::Result<Option<Preloaded>> {
    let settings = Settings::from(config);
    let loaded = tokio::task::spawn_blocking(move || Preloaded::load(&settings)).await;
    loaded.context("loading the programs panicked")?.context(
        "failed to load the programs, so this agent cannot take over; the running one continues",
    )
}

/// Reports to the other agent and the service manager that this one is ready. Errors mean that the
/// other one has ended.
async fn report_ready(predecessor: &mut Predecessor, when_taken: WhenTaken) {
    let _ = predecessor.ready().await;
    let _ = sd_notify::notify(&[
        NotifyState::Ready,
        NotifyState::Status("standby: waiting for the running agent to end"),
    ]);
    if when_taken == WhenTaken::TakeOver {
        info!("ready; asking the running agent to end");
        let _ = predecessor.take_over().await;
    } else {
        info!("standby: ready to take over when the running agent ends");
    }
}

async fn terminated(signals: &mut Signals) {
    while signals.next().await != Signal::Terminate {}
}

impl Inheritance {
    /// How the agent before this one ended, given whether it was killed.
    pub(crate) fn predecessor(&self, was_killed: bool) -> interception::Predecessor {
        match self.waiting_since {
            since if was_killed => interception::Predecessor::Killed(since),
            Some(_) => interception::Predecessor::HandedOver,
            None => interception::Predecessor::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;
    use crate::agent::process::lock::Locks;

    /// Connects to an agent that closes the connection, and then ends if it `dies`.
    async fn connect_to_closing(dies: bool) -> anyhow::Result<bool> {
        let directory = tempfile::tempdir()?;
        let mut config = Config::default();
        config.agent.run_dir = directory.path().to_owned();
        let mut locks = Some(Locks::acquire(directory.path(), &[])?);
        let listener = UnixListener::bind(config.agent.control_socket())?;
        let closing = async {
            drop(listener.accept().await);
            if dies {
                locks = None;
            }
        };
        let (connected, ()) = tokio::join!(connect(&config), closing);
        drop(locks);
        connected.map(|connected| connected.is_some())
    }

    #[tokio::test]
    async fn an_agent_that_dies_before_it_hands_over_is_no_predecessor() {
        assert!(!connect_to_closing(true).await.expect("no error"));
    }

    #[tokio::test]
    async fn an_agent_that_does_not_hand_over_is_an_error() {
        let error = connect_to_closing(false).await.expect_err("no sockets").to_string();
        assert_eq!(error, "the running agent does not hand its sockets over");
    }
}
