//! The follower: the handle to the task that follows destinations.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    address_cache::{AddressCache, BackendError},
    follow_state::FollowState,
    follow_task::{self, ResolvedTargets, Shared},
    lookup::Resolvers,
    resolution::TTL_MAX,
    target::{Freshness, Resolved, Target},
};
use crate::{config::Upstream, net::Nameservers, route::SourceName};

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
        let FollowerSettings { upstreams, own, state_file } = settings;
        let state = FollowState::new(AddressCache::load(&state_file, Timestamp::now())?);
        let resolvers = Resolvers::new(Nameservers::new(upstreams, own));
        let shared = Arc::new(Shared::new(state, resolvers, state_file));
        let stop = CancellationToken::new();
        let task = tokio::spawn(follow_task::run(Arc::clone(&shared), stop.clone()));
        Ok(Self { shared, task: Some(task), stop })
    }

    /// Replaces all targets. Those that stay keep their state; new ones are looked up at once.
    /// [`Follower::current`] has the new targets when this returns.
    pub fn set_targets(&self, targets: BTreeMap<SourceName, Target>) {
        let mut state = self.shared.state.lock();
        state.set_targets(targets);
        self.shared.publish(&state);
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Replaces or, with `None`, removes the target of one source. Does not wake subscribers.
    pub fn set_target(&self, source: &SourceName, target: Option<Target>) {
        let mut state = self.shared.state.lock();
        let Ok(resolved) = state.set_target(source, target) else { return };
        self.shared.publish_silently(source, resolved);
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Replaces the servers for targets without a resolver of their own. Known addresses stay until
    /// their next look-up is due.
    pub fn set_upstreams(&self, upstreams: Vec<Upstream>, own: Vec<SocketAddr>) {
        self.shared.resolvers.set_nameservers(Nameservers::new(upstreams, own));
    }

    /// The state of all targets.
    pub fn current(&self) -> ResolvedTargets {
        Arc::clone(&self.shared.published.borrow())
    }

    /// A receiver that wakes when addresses or their freshness change. A look-up that only confirms
    /// them does not wake it.
    pub fn subscribe(&self) -> watch::Receiver<ResolvedTargets> {
        self.shared.published.subscribe()
    }

    /// The sources that look-ups have changed since the last call. Some may have no target any
    /// more.
    pub fn take_changed(&self) -> Vec<SourceName> {
        self.shared.state.lock().take_changed().into_iter().collect()
    }

    /// Waits up to `limit` for the first answer about a source, positive or authoritatively
    /// negative, and returns its state. A failed look-up ends the wait only if there are earlier
    /// addresses.
    pub async fn wait_for_answer(&self, source: &SourceName, limit: Duration) -> Resolved {
        let mut finished = self.shared.finished.subscribe();
        let has_outcome = || self.shared.state.lock().has_outcome(source);
        let answer = async { while !has_outcome() && finished.changed().await.is_ok() {} };
        // The current state counts in either case.
        let _ = timeout(limit, answer).await;
        let resolved = self.shared.state.lock().resolved(source);
        resolved.unwrap_or_else(|| Resolved {
            addresses: vec![],
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
