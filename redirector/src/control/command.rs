//! Commands to the agent's event loop.

use std::{fmt, time::Duration};

use tokio::sync::{mpsc, oneshot};

use crate::{
    control::{
        api,
        error::{ApiError, ErrorCode},
        event_hub::Subscription,
    },
    route::{RawRoute, RoutePatch, SourceName},
};

/// How much longer a change of many routes may take than another command.
pub(super) const MANY_ROUTES: Duration = Duration::from_secs(90);

/// Where the event loop sends its reply. When it is dropped, the client receives "shutting down".
pub type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// A request to the event loop. Each is executed as a whole, in the order of arrival.
#[derive(Debug)]
pub enum Command {
    /// Return the status.
    Status(Reply<api::Status>),
    /// Return every route.
    Routes(Reply<api::RouteList>),
    /// Return how many routes are live.
    Progress(Reply<api::Progress>),
    /// Return one route.
    Route(SourceName, Reply<api::RouteShow>),
    /// Add a route that does not exist yet.
    Add(Box<RawRoute>, Caller, Reply<api::Changed>),
    /// Change a route: absent fields stay, null clears.
    Set(SourceName, Box<RoutePatch>, Caller, Reply<api::Changed>),
    /// Remove a route, or the override of a file's route.
    Remove(SourceName, Caller, Reply<api::Changed>),
    /// Import routes.
    Import(api::ImportRequest, Caller, Reply<api::Imported>),
    /// Return the recorded changes.
    History(Reply<api::ChangeList>),
    /// Return one change with its routes.
    Change(u64, Reply<api::ChangeShow>),
    /// Undo the last change.
    Rollback(api::RollbackRequest, Caller, Reply<api::RolledBack>),
    /// Return every definition in force.
    Export(Reply<api::Export>),
    /// Subscribe to events of connects.
    Events(api::EventQuery, Reply<Subscription>),
    /// Read the configuration file again.
    Reload(Caller, Reply<api::Reloaded>),
}

/// The process at the other end of the socket (SO_PEERCRED at the time of connect).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The process, if it is visible from the agent's PID namespace.
    pub pid: Option<i32>,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "uid {} gid {} pid {pid}", self.uid, self.gid),
            None => write!(f, "uid {} gid {}", self.uid, self.gid),
        }
    }
}

/// A handle to the event loop's queue.
#[derive(Clone, Debug)]
pub struct Handle {
    queue: mpsc::Sender<Command>,
    timeout: Duration,
}

impl Handle {
    /// A handle to `queue`. A command without a reply after `timeout` fails.
    pub fn new(queue: mpsc::Sender<Command>, timeout: Duration) -> Self {
        Self { queue, timeout }
    }

    /// Queues the command that `make` creates with a reply, and waits for the reply.
    pub async fn send<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, ApiError> {
        self.send_within(self.timeout, make).await
    }

    /// As [`Handle::send`], for a change of many routes, which waits for their look-ups.
    pub(super) async fn send_many<T>(
        &self,
        make: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, ApiError> {
        self.send_within(self.timeout + MANY_ROUTES, make).await
    }

    async fn send_within<T>(
        &self,
        timeout: Duration,
        make: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, ApiError> {
        let gone = || {
            ApiError::new(ErrorCode::ShuttingDown, "the agent is shutting down")
                .remedy("try again when it has restarted")
        };
        let (reply, answer) = oneshot::channel();
        let replied = async {
            self.queue.send(make(reply)).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        tokio::time::timeout(timeout, replied).await.unwrap_or_else(|_| {
            Err(ApiError::new(
                ErrorCode::NoAnswer,
                format!(
                    "the agent has not answered within {} s; the request may still be executed",
                    timeout.as_secs()
                ),
            )
            .remedy("read the agent's log, and run `redirector status`"))
        })
    }
}
