//! What the server asks of the agent's owner task.

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

/// Where the owner task puts its answer. Dropping it tells the client that the agent is on its way
/// out.
pub type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// One request to the owner task. Each is carried out as a whole, in the order of arrival.
#[derive(Debug)]
pub enum Command {
    /// Tell everything.
    Status(Reply<api::Status>),
    /// Tell every route.
    Routes(Reply<api::RouteList>),
    /// Tell one route.
    Route(SourceName, Reply<api::RouteShow>),
    /// Add a route that does not exist yet.
    Add(Box<RawRoute>, Caller, Reply<api::Changed>),
    /// Change a route: what is absent stays, null clears.
    Set(SourceName, Box<RoutePatch>, Caller, Reply<api::Changed>),
    /// Remove a route, or the override of a file's route.
    Remove(SourceName, Caller, Reply<api::Changed>),
    /// Import routes.
    Import(api::ImportRequest, Caller, Reply<api::Imported>),
    /// Tell who changed what.
    History(Reply<api::ChangeList>),
    /// Tell one change in full.
    Change(u64, Reply<api::ChangeShow>),
    /// Take the last change back.
    Rollback(api::RollbackRequest, Caller, Reply<api::RolledBack>),
    /// Tell every definition that serves.
    Export(Reply<api::Export>),
    /// Tell what has happened to connects, and what happens.
    Events(api::EventQuery, Reply<Subscription>),
    /// Read the configuration file again.
    Reload(Caller, Reply<api::Reloaded>),
}

/// Who is at the other end of the socket (SO_PEERCRED at the time of connect).
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

/// The way into the owner task's queue.
#[derive(Clone, Debug)]
pub struct Handle {
    queue: mpsc::Sender<Command>,
    patience: Duration,
}

impl Handle {
    /// A handle on a queue; a request that the owner has not answered after `patience` is answered
    /// for it.
    pub fn new(queue: mpsc::Sender<Command>, patience: Duration) -> Self {
        Self { queue, patience }
    }

    /// Queues the command that `make` makes around a reply, and waits for the answer.
    pub async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, ApiError> {
        let gone = || {
            ApiError::new(ErrorCode::ShuttingDown, "the agent is shutting down")
                .remedy("try again when it is back")
        };
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.queue.send(make(reply)).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        tokio::time::timeout(self.patience, asked).await.unwrap_or_else(|_| {
            Err(ApiError::new(
                ErrorCode::NoAnswer,
                format!(
                    "the agent has not answered within {} s; the request may still be carried out",
                    self.patience.as_secs()
                ),
            )
            .remedy("look at the agent's log and at `redirector status`"))
        })
    }
}
