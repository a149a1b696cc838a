//! The task of the follower: makes look-ups when they are due, and publishes their results.

use std::{path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    address_cache::AddressCache,
    follow_state::{FollowState, LookupKey, Update},
    lookup::{LookupResult, Resolvers},
    target::{Freshness, Resolved},
};
use crate::error::error_chain;

/// The most concurrent look-ups.
pub(super) const MAX_CONCURRENT: usize = 32;
/// How often the cache file is written if only times changed.
const SAVE_INTERVAL: Duration = Duration::from_secs(300);
/// Least time between two writes of the cache file, which holds every name.
const SAVE_GAP: Duration = Duration::from_secs(1);

/// What the follower and its task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<FollowState>,
    /// Number of look-ups that changed addresses or their freshness.
    pub(super) changes: watch::Sender<u64>,
    /// Number of finished look-ups.
    pub(super) finished: watch::Sender<u64>,
    /// Wakes the task when targets have changed or an early look-up is due.
    pub(super) wake: Notify,
    pub(super) resolvers: Resolvers,
    cache_file: PathBuf,
}

impl Shared {
    pub(super) fn new(state: FollowState, resolvers: Resolvers, cache_file: PathBuf) -> Self {
        Self {
            state: Mutex::new(state),
            changes: watch::Sender::default(),
            finished: watch::Sender::default(),
            wake: Notify::new(),
            resolvers,
            cache_file,
        }
    }

    /// Writes the last known addresses to disk.
    pub(super) async fn save(&self) {
        let cache = AddressCache::new(self.state.lock().to_cache());
        let path = self.cache_file.clone();
        let stored = tokio::task::spawn_blocking(move || cache.store(&path)).await;
        if let Ok(Err(error)) = stored {
            tracing::warn!("failed to save the last known addresses: {}", error_chain(&error));
        }
    }

    /// Applies a result. Returns whether addresses changed.
    fn finish(&self, key: &Arc<LookupKey>, result: LookupResult) -> bool {
        let mut state = self.state.lock();
        let Some(Update { before, after }) = state.finish(key, result) else { return false };
        drop(state);
        if !before.is_equivalent(&after) {
            self.changes.send_modify(|count| *count += 1);
        }
        self.finished.send_modify(|count| *count += 1);
        log_change(&key.name, &before, &after);
        before.addresses != after.addresses
    }
}

/// Makes look-ups when they are due, until `stop` is cancelled.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut lookups = JoinSet::new();
    let (mut saved_at, mut is_unsaved) = (Instant::now() - SAVE_GAP, false);
    loop {
        let free = MAX_CONCURRENT.saturating_sub(lookups.len());
        for key in shared.state.lock().start_due(free) {
            let shared = Arc::clone(&shared);
            lookups.spawn(async move {
                let result = shared.resolvers.lookup(&key.name, key.resolver).await;
                (key, result)
            });
        }
        let next = shared.state.lock().next_due().filter(|_| lookups.len() < MAX_CONCURRENT);
        let save_at = saved_at + if is_unsaved { SAVE_GAP } else { SAVE_INTERVAL };
        let wake_at = next.map_or(save_at, |next| next.min(save_at));
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(Ok((key, result))) = lookups.join_next() => {
                is_unsaved |= shared.finish(&key, result);
            }
            () = shared.wake.notified() => {}
            () = sleep_until(wake_at) => {}
        }
        if Instant::now() >= save_at {
            (saved_at, is_unsaved) = (Instant::now(), false);
            shared.save().await;
        }
    }
}

/// Logs each change once.
fn log_change(name: &str, before: &Resolved, after: &Resolved) {
    if before.addresses != after.addresses {
        tracing::info!(name, addresses = ?after.addresses, "the destination's addresses changed");
    }
    match (&before.freshness, &after.freshness) {
        (Freshness::Stale { error: old }, Freshness::Stale { error }) if old == error => {}
        (_, Freshness::Stale { error }) => tracing::warn!(
            "keeping the last {} addresses of {name}: {error}",
            after.addresses.len()
        ),
        (
            Freshness::Unresolved { error: Some(old) },
            Freshness::Unresolved { error: Some(error) },
        ) if old == error => {}
        (_, Freshness::Unresolved { error: Some(error) }) => {
            tracing::warn!("no address of {name} is known yet: {error}")
        }
        (Freshness::Stale { .. } | Freshness::Unresolved { error: Some(_) }, _) => {
            tracing::info!(name, "the destination resolves again")
        }
        _ => {}
    }
}
