//! The task of the follower: makes look-ups when they are due, and publishes their results.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    address_cache::AddressCache,
    follow_state::{FollowState, Lookup, Update},
    lookup::{LookupResult, Resolvers},
    target::{Freshness, Resolved},
};
use crate::{error::error_chain, route::SourceName};

/// The most concurrent look-ups.
const MAX_CONCURRENT: usize = 32;
/// How often the cache file is written if only times changed.
const SAVE_INTERVAL: Duration = Duration::from_secs(300);

/// The state of every target.
pub type ResolvedTargets = Arc<BTreeMap<SourceName, Arc<Resolved>>>;

/// What the follower and its task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<FollowState>,
    pub(super) published: watch::Sender<ResolvedTargets>,
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
            published: watch::Sender::default(),
            finished: watch::Sender::default(),
            wake: Notify::new(),
            resolvers,
            cache_file,
        }
    }

    /// Publishes all targets. Subscribers wake only if addresses or freshness changed.
    pub(super) fn publish(&self, state: &FollowState) {
        let current = state.all();
        self.published.send_if_modified(|published| {
            let is_same = published.len() == current.len()
                && published
                    .iter()
                    .zip(&current)
                    .all(|(old, new)| old.0 == new.0 && old.1.is_equivalent(new.1));
            *published = Arc::new(current);
            !is_same
        });
    }

    /// Publishes one target without waking subscribers; `None` removes it.
    pub(super) fn publish_silently(&self, source: &SourceName, resolved: Option<Arc<Resolved>>) {
        self.published.send_if_modified(|published| {
            let published = Arc::make_mut(published);
            match resolved {
                Some(resolved) => drop(published.insert(source.clone(), resolved)),
                None => drop(published.remove(source)),
            }
            false
        });
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

    /// Applies and publishes a result. Returns whether addresses changed.
    fn finish(&self, lookup: &Lookup, result: LookupResult) -> bool {
        let mut state = self.state.lock();
        let Some(Update { before, after }) = state.finish(lookup, result) else { return false };
        self.published.send_if_modified(|published| {
            let published_before = published.get(&lookup.source);
            let changed = published_before.is_none_or(|before| !before.is_equivalent(&after));
            if changed {
                state.mark_changed(&lookup.source);
            }
            Arc::make_mut(published).insert(lookup.source.clone(), Arc::new(after.clone()));
            changed
        });
        drop(state);
        self.finished.send_modify(|count| *count += 1);
        log_change(&lookup.name, &before, &after);
        before.addresses != after.addresses
    }
}

/// Makes look-ups when they are due, until `stop` is cancelled.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut lookups = JoinSet::new();
    let mut saved_at = Instant::now();
    loop {
        let free = MAX_CONCURRENT.saturating_sub(lookups.len());
        for lookup in shared.state.lock().start_due(free) {
            let shared = Arc::clone(&shared);
            lookups.spawn(async move {
                let result = shared.resolvers.lookup(&lookup.name, lookup.resolver).await;
                (lookup, result)
            });
        }
        let next = shared.state.lock().next_due().filter(|_| lookups.len() < MAX_CONCURRENT);
        let save_now = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(Ok((lookup, result))) = lookups.join_next() => shared.finish(&lookup, result),
            () = shared.wake.notified() => false,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => false,
        };
        if save_now || saved_at.elapsed() >= SAVE_INTERVAL {
            saved_at = Instant::now();
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
