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

/// Makes look-ups when they are due, until `stop` is cancelled. A slow disk delays none: the cache
/// file is written meanwhile, and what has changed since is in the next one.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let (mut lookups, mut saves) = (JoinSet::new(), JoinSet::new());
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
        let save_at = match (saves.is_empty(), is_unsaved) {
            (true, true) => saved_at + SAVE_GAP,
            (true, false) => saved_at + SAVE_INTERVAL,
            (false, _) => Instant::now() + SAVE_INTERVAL,
        };
        let wake_at = next.map_or(save_at, |next| next.min(save_at));
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(Ok((key, result))) = lookups.join_next() => {
                is_unsaved |= shared.finish(&key, result);
            }
            Some(_) = saves.join_next() => {}
            () = shared.wake.notified() => {}
            () = sleep_until(wake_at) => {}
        }
        if Instant::now() >= save_at {
            (saved_at, is_unsaved) = (Instant::now(), false);
            let shared = Arc::clone(&shared);
            saves.spawn(async move { shared.save().await });
        }
    }
    // The last save is the caller's: an earlier one must not replace it.
    while saves.join_next().await.is_some() {}
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::UdpSocket;

    use crate::{
        backend::{Follower, FollowerSettings, Resolved, Target},
        pool::Pool,
        route::{Destination, SourceName},
        test_support::HangingDisk,
    };

    use super::*;

    /// Answers each query: 203.0.113.7, and no IPv6 address.
    async fn answer_all(server: UdpSocket) {
        let mut query = [0; 512];
        while let Ok((_, client)) = server.recv_from(&mut query).await {
            let name = query[12..].iter().position(|octet| *octet == 0).expect("a name");
            let question = &query[12..12 + name + 5];
            let is_a = question[name + 2] == 1;
            let counts = [0, 1, 0, u8::from(is_a), 0, 0, 0, 0];
            let answer: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 7];
            let answer = if is_a { answer } else { &[] };
            let reply = [&query[..2], &[0x81, 0x80], &counts, question, answer].concat();
            server.send_to(&reply, client).await.expect("sent");
        }
    }

    async fn follow(follower: &Follower, source: &str, resolver: SocketAddr) -> Resolved {
        let source: SourceName = source.parse().expect("a name");
        let destination = Destination::Name(format!("lb.{source}"));
        let target = Target { destination, resolver: Some(resolver) };
        follower.set_target(&source, Some(target));
        follower.wait_for_answer(&source, Duration::from_secs(20)).await
    }

    #[test]
    fn a_disk_that_hangs_delays_no_lookup() {
        let folder = tempfile::tempdir().expect("a directory");
        let state_file = folder.path().join("destinations.json");
        HangingDisk::run(async |disk| {
            let server = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            let resolver = server.local_addr().expect("an address");
            tokio::spawn(answer_all(server));
            let follower = Follower::start(FollowerSettings {
                upstreams: vec![],
                own: vec![],
                pool: Pool::default(),
                state_file: state_file.clone(),
            });
            let follower = follower.expect("a follower");
            for name in ["one.example", "two.example", "three.example"] {
                let resolved = follow(&follower, name, resolver).await;
                assert_eq!(resolved.addresses.len(), 1, "{name}: {resolved:?}");
            }
            assert!(!state_file.exists(), "it hangs");
            disk.resume();
            follower.shutdown().await;
            let saved = std::fs::read_to_string(&state_file).expect("a file");
            assert!(saved.contains("three.example"), "{saved}");
        });
    }
}
