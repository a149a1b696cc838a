//! Changes that wait for the first answers about new destinations.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tracing::error;

use crate::{
    backend::Follower,
    control::{
        Reply,
        api::{self, ChangeKind},
    },
    route::SourceName,
};

/// How long a change waits for the first answer about a new destination. After that the route is
/// live with whatever is known, perhaps nothing.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// What to do when the destinations of a change have settled.
#[derive(Debug)]
pub(crate) enum Completion {
    /// Nothing.
    None,
    /// Finish startup.
    Started,
    /// Reply to the change of one route.
    Changed(Reply<api::Changed>, ChangeKind, SourceName),
    /// Reply to a rollback.
    RolledBack(Reply<api::RolledBack>, Box<api::RolledBack>),
    /// Reply to an import.
    Imported(Reply<api::Imported>, Box<api::Imported>),
    /// Reply to a reload.
    Reloaded(Reply<api::Reloaded>, api::Reloaded),
}

/// A wait that is over.
#[derive(Debug)]
pub(crate) struct SettledWait {
    /// The sources it held back, with the number of the change.
    pub(crate) held: Vec<(SourceName, u64)>,
    pub(crate) completion: Completion,
}

/// The waits that are not over.
#[derive(Debug, Default)]
pub(crate) struct PendingChanges {
    waits: JoinSet<SettledWait>,
}

impl PendingChanges {
    /// Waits until the destinations of the `held` sources have answered, or [`SETTLE_TIMEOUT`].
    pub(crate) fn spawn(
        &mut self,
        follower: Arc<Follower>,
        held: Vec<(SourceName, u64)>,
        completion: Completion,
    ) {
        self.waits.spawn(async move {
            let settled =
                held.iter().map(|(source, _)| follower.wait_for_answer(source, SETTLE_TIMEOUT));
            futures_util::future::join_all(settled).await;
            SettledWait { held, completion }
        });
    }

    /// The next wait that is over; none at once when there is none.
    pub(crate) async fn next(&mut self) -> Option<SettledWait> {
        match self.waits.join_next().await? {
            Ok(settled) => Some(settled),
            Err(error) => {
                error!(%error, "a wait for new destinations panicked");
                None
            }
        }
    }

    /// Abandons all waits; their requests are answered with "shutting down".
    pub(crate) async fn shutdown(&mut self) {
        self.waits.shutdown().await;
    }
}
