//! The follower: the handle to the task that follows destinations.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    address_cache::{AddressCache, BackendError},
    address_policy::AddressPolicy,
    follow_state::FollowState,
    follow_task::{self, Shared},
    lookup::Resolvers,
    resolution::TTL_MAX,
    target::{Freshness, Resolved, Target},
};
use crate::{config::Upstream, net::Nameservers, pool::Pool, route::SourceName};

/// Shortest time between two look-ups of one name.
const REFRESH_GAP: Duration = Duration::from_secs(1);

/// The settings of the follower.
#[derive(Clone, Debug)]
pub struct FollowerSettings {
    /// The servers for targets without a resolver of their own.
    pub upstreams: Vec<Upstream>,
    /// Our own DNS addresses, which are never queried: the shim would answer with a virtual
    /// address, and the route would lead to itself.
    pub own: Vec<SocketAddr>,
    /// The virtual addresses, to which no name may lead.
    pub pool: Pool,
    /// The file with the last known addresses.
    pub state_file: PathBuf,
}

/// Follows the destinations of routes. Dropping it stops its task; [`Follower::shutdown`] also
/// saves the last known addresses.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Follower {
    /// Starts the task, without targets. Call it within a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the state file exists and cannot be read.
    pub fn start(settings: FollowerSettings) -> Result<Self, BackendError> {
        let FollowerSettings { upstreams, own, pool, state_file } = settings;
        let policy = AddressPolicy::new(pool, own.iter().map(SocketAddr::ip));
        let mut cached = AddressCache::load(&state_file, Timestamp::now())?;
        for cached in &mut cached {
            // The pool, or where we listen, may have changed.
            cached.addresses.retain(|address| policy.objection(*address).is_none());
        }
        cached.retain(|cached| !cached.addresses.is_empty());
        let state = FollowState::new(cached);
        let resolvers = Resolvers::new(Nameservers::new(upstreams, own), policy);
        let shared = Arc::new(Shared::new(state, resolvers, state_file));
        let stop = CancellationToken::new();
        let task = tokio::spawn(follow_task::run(Arc::clone(&shared), stop.clone()));
        Ok(Self { shared, task: Some(task), stop })
    }

    /// Replaces all targets. Names that stay keep their state; new ones are looked up at once.
    pub fn set_targets(&self, targets: BTreeMap<SourceName, Target>) {
        self.shared.state.lock().set_targets(targets);
        self.shared.wake.notify_one();
    }

    /// Replaces or, with `None`, removes the target of one source. Does not wake subscribers.
    pub fn set_target(&self, source: &SourceName, target: Option<Target>) {
        self.shared.state.lock().set_target(source, target);
        self.shared.wake.notify_one();
    }

    /// Replaces the servers for targets without a resolver of their own. Known addresses stay until
    /// their next look-up is due.
    pub fn set_upstreams(&self, upstreams: Vec<Upstream>, own: Vec<SocketAddr>) {
        self.shared.resolvers.set_nameservers(Nameservers::new(upstreams, own));
    }

    /// The state of one target; `None` if the source is not followed.
    pub fn resolved(&self, source: &SourceName) -> Option<Arc<Resolved>> {
        self.shared.state.lock().resolved(source)
    }

    /// The state of all targets.
    pub fn current(&self) -> BTreeMap<SourceName, Arc<Resolved>> {
        self.shared.state.lock().all()
    }

    /// A receiver that wakes when addresses or their freshness change. A look-up that only confirms
    /// them does not wake it.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Up to `limit` sources that look-ups have changed. If there are more, subscribers wake
    /// again. Some may have no target any more.
    pub fn take_changed(&self, limit: usize) -> Vec<SourceName> {
        let mut state = self.shared.state.lock();
        let changed = state.take_changed(limit);
        if state.has_changed() {
            self.shared.changes.send_modify(|count| *count += 1);
        }
        changed
    }

    /// Whether there was an answer about a source, positive or authoritatively negative, or a
    /// failure after earlier addresses; also if there is nothing to wait for.
    pub fn has_outcome(&self, source: &SourceName) -> bool {
        self.shared.state.lock().has_outcome(source)
    }

    /// Whether a look-up of a source has ended, in whatever way.
    pub fn was_looked_up(&self, source: &SourceName) -> bool {
        self.shared.state.lock().was_looked_up(source)
    }

    /// A receiver that wakes when a look-up ends.
    pub fn finished_lookups(&self) -> watch::Receiver<u64> {
        self.shared.finished.subscribe()
    }

    /// Waits up to `limit` for the first answer about a source, positive or authoritatively
    /// negative, and returns its state. A failed look-up ends the wait only if there are earlier
    /// addresses.
    pub async fn wait_for_answer(&self, source: &SourceName, limit: Duration) -> Resolved {
        let mut finished = self.shared.finished.subscribe();
        let answer =
            async { while !self.has_outcome(source) && finished.changed().await.is_ok() {} };
        // The current state counts in either case.
        let _ = timeout(limit, answer).await;
        let resolved = self.shared.state.lock().resolved(source);
        resolved.map(Arc::unwrap_or_clone).unwrap_or_else(|| Resolved {
            addresses: vec![],
            left_out: vec![],
            rejected: vec![],
            freshness: Freshness::Unresolved { error: Some(format!("{source} is not followed")) },
            resolved_at: Timestamp::now(),
            ttl: TTL_MAX,
        })
    }

    /// Looks up a source's destination before its TTL ends, for example after a backend failed. At
    /// most once a second.
    pub fn refresh(&self, source: &SourceName) {
        self.shared.state.lock().expedite(source, REFRESH_GAP);
        self.shared.wake.notify_one();
    }

    /// Stops the task and saves the last known addresses.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the task that follows destinations panicked");
        }
        self.shared.save().await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
