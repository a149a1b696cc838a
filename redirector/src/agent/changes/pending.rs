//! Changes that wait for the first answers about new destinations.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use crate::{
    agent::state::reconciler::MAX_SINGLE,
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
/// How long a change of many routes waits for destinations that are queued for their first look-up.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(60);
/// A change of more routes than this is one of many.
const MANY: usize = 100;
/// How often a wait checks what has settled.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// What to do when the destinations of a change have settled.
#[derive(Debug, Default)]
pub(crate) enum Completion {
    /// Nothing.
    #[default]
    None,
    /// Finish startup.
    Started,
    /// Report the cluster's routes.
    Cluster,
    /// Reply to the change of one route.
    Changed(Reply<api::Changed>, ChangeKind, SourceName),
    /// Reply to a rollback.
    RolledBack(Reply<api::RolledBack>, Box<api::RolledBack>),
    /// Reply to an import.
    Imported(Reply<api::Imported>, Box<api::Imported>),
    /// Reply to a reload.
    Reloaded(Reply<api::Reloaded>, api::Reloaded),
}

/// Routes of a change that can be put in force.
#[derive(Debug, Default)]
pub(crate) struct SettledWait {
    /// Sources that the change did not hold back, or not yet.
    pub(crate) sources: Vec<SourceName>,
    /// The sources that it held back, with the number of the change.
    pub(crate) held: Vec<(SourceName, u64)>,
    /// [`Completion::None`] while other routes of the change are awaited.
    pub(crate) completion: Completion,
}

/// The waits that are not over.
#[derive(Debug)]
pub(crate) struct PendingChanges {
    waits: JoinSet<()>,
    sender: mpsc::Sender<SettledWait>,
    settled: mpsc::Receiver<SettledWait>,
}

impl Default for PendingChanges {
    fn default() -> Self {
        let (sender, settled) = mpsc::channel(1);
        Self { waits: JoinSet::new(), sender, settled }
    }
}

impl PendingChanges {
    /// Returns the `later` sources in parts, then waits until the destinations of the `held` ones
    /// have settled. They settle in parts as well, so that the first ones need not wait for the
    /// last, and commands are executed in between.
    pub(crate) fn spawn(
        &mut self,
        follower: Arc<Follower>,
        (later, held): (Vec<SourceName>, Vec<(SourceName, u64)>),
        completion: Completion,
    ) {
        while self.waits.try_join_next().is_some() {}
        let is_patient = held.len() > MANY && !matches!(completion, Completion::Started);
        let settling = Settling { follower, waiting: held, start: Instant::now(), is_patient };
        self.waits.spawn(settling.run(self.sender.clone(), later, completion));
    }

    /// The next routes that have settled.
    pub(crate) async fn next(&mut self) -> Option<SettledWait> {
        self.settled.recv().await
    }

    /// Abandons all waits; their requests are answered with "shutting down".
    pub(crate) async fn shutdown(&mut self) {
        self.waits.shutdown().await;
    }
}

/// A change whose destinations are looked up.
struct Settling {
    follower: Arc<Follower>,
    waiting: Vec<(SourceName, u64)>,
    start: Instant,
    /// Whether to wait for look-ups that are still queued.
    is_patient: bool,
}

impl Settling {
    async fn run(
        mut self,
        sender: mpsc::Sender<SettledWait>,
        later: Vec<SourceName>,
        completion: Completion,
    ) {
        for part in later.chunks(MAX_SINGLE) {
            // An error means that the agent is shutting down.
            let _ = sender.send(SettledWait { sources: part.to_vec(), ..Default::default() }).await;
        }
        drop(later);
        let mut finished = self.follower.finished_lookups();
        let mut settled = self.take_settled();
        while !self.waiting.is_empty() {
            send_parts(&sender, &mut settled, 0).await;
            // Many are not checked after each look-up.
            let is_single = self.waiting.len() <= MANY;
            tokio::select! {
                Ok(()) = finished.changed(), if is_single => {}
                () = sleep(CHECK_INTERVAL) => {}
            }
            settled = self.take_settled();
        }
        send_parts(&sender, &mut settled, MAX_SINGLE).await;
        // An error means that the agent is shutting down.
        let last = SettledWait { held: settled, completion, ..Default::default() };
        let _ = sender.send(last).await;
    }

    fn take_settled(&mut self) -> Vec<(SourceName, u64)> {
        let elapsed = self.start.elapsed();
        let limit = if self.is_patient { QUEUE_TIMEOUT } else { SETTLE_TIMEOUT };
        let has_settled = |(source, _): &mut (SourceName, u64)| {
            self.follower.has_outcome(source)
                || elapsed >= limit
                || elapsed >= SETTLE_TIMEOUT && self.follower.was_looked_up(source)
        };
        self.waiting.extract_if(.., has_settled).collect()
    }
}

/// Sends parts of `settled` until at most `rest` are left.
async fn send_parts(
    sender: &mpsc::Sender<SettledWait>,
    settled: &mut Vec<(SourceName, u64)>,
    rest: usize,
) {
    while settled.len() > rest {
        let held = settled.split_off(settled.len().saturating_sub(MAX_SINGLE));
        // An error means that the agent is shutting down.
        let _ = sender.send(SettledWait { held, ..Default::default() }).await;
    }
}
