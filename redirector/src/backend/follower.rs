//! The task that looks names up when they are due, and the handle to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    BackendError, Freshness, Resolved, Target,
    address_cache::{Saved, SavedDestination},
    lookup::{Answer, Resolvers},
    resolution::{Entry, TTL_CEILING},
};
use crate::{config::Upstream, net::Nameservers, route::SourceName};

/// Look-ups at a time.
const CONCURRENT: usize = 32;
/// An early look-up comes at least this long after the last one.
const REFRESH_GAP: Duration = Duration::from_secs(1);
/// How often the state file is written when only times changed.
const SAVE_EVERY: Duration = Duration::from_secs(300);
/// The next look-up is due after the TTL, more or less by this part of it.
const JITTER: f64 = 0.1;

/// What the follower needs to know.
#[derive(Clone, Debug)]
pub struct FollowerSettings {
    /// Who is asked about targets without a resolver of their own.
    pub upstreams: Vec<Upstream>,
    /// Our own DNS addresses, which are never asked: the shim would answer with a VIP, and the
    /// route would lead to itself.
    pub own: Vec<SocketAddr>,
    /// Where the last known addresses are kept.
    pub state_file: PathBuf,
}

/// Follows the destinations of routes. Dropping it stops its task; [`Follower::shutdown`] also
/// saves what is known.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
    stop: CancellationToken,
}

/// What is known about every target.
pub type Known = Arc<BTreeMap<SourceName, Arc<Resolved>>>;

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    published: watch::Sender<Known>,
    /// Counts the look-ups that ended, for those who wait for one.
    progress: watch::Sender<u64>,
    /// Targets changed, or an early look-up is wanted.
    wake: Notify,
    resolvers: Resolvers,
    state_file: PathBuf,
}

#[derive(Debug, Default)]
struct State {
    /// Targets that are names.
    followed: BTreeMap<SourceName, Followed>,
    /// Literal addresses, about which there is nothing to do: a pool full of routes may have
    /// nothing else.
    fixed: BTreeMap<SourceName, Arc<Resolved>>,
    /// Whose addresses or freshness a look-up has changed since [`Follower::take_changed`] was
    /// asked last.
    changed: BTreeSet<SourceName>,
    /// What an earlier run left, for targets to come.
    saved: Vec<SavedDestination>,
    next_token: u64,
}

#[derive(Debug)]
struct Followed {
    entry: Entry,
    /// Tells this target from a former one of the same source, whose look-up may still be under
    /// way.
    token: u64,
    running: bool,
    due: Instant,
    last: Option<Instant>,
}

/// A look-up to make.
struct Job {
    source: SourceName,
    token: u64,
    name: String,
    resolver: Option<SocketAddr>,
}

impl Follower {
    /// Starts the task, with nothing to follow yet. Call it within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the state file is there and can't be read.
    pub fn start(settings: FollowerSettings) -> Result<Self, BackendError> {
        let FollowerSettings { upstreams, own, state_file } = settings;
        let state =
            State { saved: Saved::load(&state_file, Timestamp::now())?, ..State::default() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            published: watch::Sender::default(),
            progress: watch::Sender::default(),
            wake: Notify::new(),
            resolvers: Resolvers::new(Nameservers::new(upstreams, own)),
            state_file,
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(Arc::clone(&shared), stop.clone()));
        Ok(Self { shared, task: Some(task), stop })
    }

    /// Makes these the targets. Those that were there before go on undisturbed, new ones are looked
    /// up at once. What this changes is in [`Follower::current`] when it returns.
    pub fn set_targets(&self, targets: BTreeMap<SourceName, Target>) {
        let mut state = self.shared.lock();
        let mut before = std::mem::take(&mut state.followed);
        before.retain(|source, followed| targets.get(source) == Some(&followed.entry.target));
        let mut fixed_before = std::mem::take(&mut state.fixed);
        let (literal, names): (Vec<_>, Vec<_>) =
            targets.into_iter().partition(|(_, target)| target.destination.addresses().is_some());
        // Collected and not inserted: a tree that grows in order is half empty.
        let literal = literal.into_iter().map(|(source, target)| {
            let resolved = fixed(target, fixed_before.remove(&source));
            (source, resolved)
        });
        state.fixed = literal.collect();
        let followed = names.into_iter().map(|(source, target)| {
            let followed = before.remove(&source).unwrap_or_else(|| state.follow(target));
            (source, followed)
        });
        let followed = followed.collect();
        state.followed = followed;
        self.shared.publish(&state);
        drop(state);
        self.shared.wake.notify_one();
    }

    /// As [`Follower::set_targets`] for one source, whose target it is from now on, or `None`; the
    /// others are not looked at, and nobody is woken by it.
    pub fn set_target(&self, source: &SourceName, target: Option<Target>) {
        let mut state = self.shared.lock();
        if state
            .followed
            .get(source)
            .is_some_and(|followed| Some(&followed.entry.target) == target.as_ref())
        {
            return;
        }
        state.followed.remove(source);
        let before = state.fixed.remove(source);
        let resolved = target.map(|target| {
            if target.destination.addresses().is_some() {
                let resolved = fixed(target, before);
                state.fixed.insert(source.clone(), Arc::clone(&resolved));
                return resolved;
            }
            let followed = state.follow(target);
            let resolved = Arc::new(followed.entry.resolved());
            state.followed.insert(source.clone(), followed);
            resolved
        });
        self.shared.published.send_if_modified(|published| {
            let published = Arc::make_mut(published);
            match resolved {
                Some(resolved) => drop(published.insert(source.clone(), resolved)),
                None => drop(published.remove(source)),
            }
            false
        });
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Asks other servers from now on about targets without a resolver of their own. What is known
    /// stays until it is due.
    pub fn set_upstreams(&self, upstreams: Vec<Upstream>, own: Vec<SocketAddr>) {
        self.shared.resolvers.set_nameservers(Nameservers::new(upstreams, own));
    }

    /// What is known now.
    pub fn current(&self) -> Known {
        Arc::clone(&self.shared.published.borrow())
    }

    /// Tells when addresses or their freshness change; a look-up that only confirms them does not
    /// wake anyone.
    pub fn subscribe(&self) -> watch::Receiver<Known> {
        self.shared.published.subscribe()
    }

    /// The sources about which look-ups have told something new since this was asked last, some of
    /// them perhaps no target any more.
    pub fn take_changed(&self) -> Vec<SourceName> {
        std::mem::take(&mut self.shared.lock().changed).into_iter().collect()
    }

    /// Waits for the first answer about a source, good or authoritatively negative, or for the
    /// deadline, and says what is known then. A failed look-up ends the wait only when there are
    /// last good addresses to go on with.
    pub async fn settle(&self, source: &SourceName, deadline: Duration) -> Resolved {
        let mut progress = self.shared.progress.subscribe();
        let settled =
            async { while !self.shared.is_settled(source) && progress.changed().await.is_ok() {} };
        // What is known counts in either case.
        let _ = timeout(deadline, settled).await;
        let state = self.shared.lock();
        let known = state.followed.get(source).map(|followed| followed.entry.resolved());
        known
            .or_else(|| state.fixed.get(source).map(|fixed| Resolved::clone(fixed)))
            .unwrap_or_else(|| Resolved {
                addresses: vec![],
                freshness: Freshness::Unresolved {
                    error: Some(format!("{source} is not followed")),
                },
                resolved_at: Timestamp::now(),
                ttl: TTL_CEILING,
            })
    }

    /// Looks a source's destination up earlier than its TTL says, after a backend failed, say. Not
    /// more than once a second.
    pub fn refresh(&self, source: &SourceName) {
        if let Some(followed) = self.shared.lock().followed.get_mut(source) {
            let now = Instant::now();
            let earliest = followed.last.map_or(now, |last| now.max(last + REFRESH_GAP));
            followed.due = followed.due.min(earliest);
        }
        self.shared.wake.notify_one();
    }

    /// Stops the task and saves what is known.
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

/// Looks up what is due until `stop` is cancelled.
async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut lookups = JoinSet::new();
    let mut saved_at = Instant::now();
    loop {
        for job in shared.lock().due(CONCURRENT.saturating_sub(lookups.len())) {
            let shared = Arc::clone(&shared);
            lookups.spawn(async move {
                let answer = shared.resolvers.lookup(&job.name, job.resolver).await;
                (job, answer)
            });
        }
        let next = shared.lock().next_due().filter(|_| lookups.len() < CONCURRENT);
        let worth_saving = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(Ok((job, answer))) = lookups.join_next() => shared.take_in(&job, answer),
            () = shared.wake.notified() => false,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => false,
        };
        if worth_saving || saved_at.elapsed() >= SAVE_EVERY {
            saved_at = Instant::now();
            shared.save().await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_settled(&self, source: &SourceName) -> bool {
        self.lock().followed.get(source).is_none_or(|followed| followed.entry.is_settled())
    }

    /// Applies an answer and says whether the addresses changed.
    fn take_in(&self, job: &Job, answer: Answer) -> bool {
        let mut state = self.lock();
        let Some(followed) =
            state.followed.get_mut(&job.source).filter(|followed| followed.token == job.token)
        else {
            return false;
        };
        let before = followed.entry.resolved();
        let wait = followed.entry.apply(answer, Timestamp::now());
        let now = Instant::now();
        followed.running = false;
        followed.last = Some(now);
        followed.due = now + wait.mul_f64(rand::random_range(1.0 - JITTER..=1.0 + JITTER));
        let after = followed.entry.resolved();
        if followed.entry.is_answered() {
            // What an earlier run knew is out of date from here on, also when the name has no
            // address any more.
            state.saved.retain(|saved| saved.name != job.name || saved.resolver != job.resolver);
        }
        self.publish_one(&mut state, &job.source, &after);
        drop(state);
        self.progress.send_modify(|count| *count += 1);
        report(&job.name, &before, &after);
        before.addresses != after.addresses
    }

    /// Publishes what is known; wakes subscribers only when addresses or freshness changed.
    fn publish(&self, state: &State) {
        let followed = state
            .followed
            .iter()
            .map(|(source, followed)| (source.clone(), Arc::new(followed.entry.resolved())));
        let fixed =
            state.fixed.iter().map(|(source, resolved)| (source.clone(), Arc::clone(resolved)));
        let now: BTreeMap<_, _> = followed.chain(fixed).collect();
        self.published.send_if_modified(|published| {
            let same = published
                .iter()
                .zip(&now)
                .all(|((one, before), (two, after))| one == two && alike(before, after));
            let changed = published.len() != now.len() || !same;
            *published = Arc::new(now);
            changed
        });
    }

    /// As [`Shared::publish`] after a look-up, which tells nothing of the others.
    fn publish_one(&self, state: &mut State, source: &SourceName, now: &Resolved) {
        self.published.send_if_modified(|published| {
            let changed = published.get(source).is_none_or(|before| !alike(before, now));
            if changed {
                state.changed.insert(source.clone());
            }
            Arc::make_mut(published).insert(source.clone(), Arc::new(now.clone()));
            changed
        });
    }

    async fn save(&self) {
        let saved = Saved::new(self.lock().to_save());
        let path = self.state_file.clone();
        let stored = tokio::task::spawn_blocking(move || saved.store(&path)).await;
        if let Ok(Err(error)) = stored {
            tracing::warn!(
                "failed to save the last known addresses: {:#}",
                anyhow::Error::from(error)
            );
        }
    }
}

impl State {
    fn follow(&mut self, target: Target) -> Followed {
        let mut entry = Entry::new(target, Timestamp::now());
        let saved = self.saved.iter().find(|saved| {
            entry.name() == Some(&saved.name) && entry.target.resolver == saved.resolver
        });
        if let Some(saved) = saved {
            entry.restore(saved.addresses.clone(), saved.resolved_at, saved.ttl());
        }
        self.next_token += 1;
        Followed { entry, token: self.next_token, running: false, due: Instant::now(), last: None }
    }

    /// The look-ups that are due, at most so many, the longest overdue first; they count as
    /// running.
    fn due(&mut self, most: usize) -> Vec<Job> {
        let now = Instant::now();
        let mut due: Vec<_> = self
            .followed
            .iter_mut()
            .filter(|(_, followed)| followed.is_waiting() && followed.due <= now)
            .collect();
        due.sort_by_key(|(_, followed)| followed.due);
        due.truncate(most);
        due.into_iter()
            .filter_map(|(source, followed)| {
                let name = followed.entry.name()?.to_owned();
                followed.running = true;
                Some(Job {
                    source: source.clone(),
                    token: followed.token,
                    name,
                    resolver: followed.entry.target.resolver,
                })
            })
            .collect()
    }

    fn next_due(&self) -> Option<Instant> {
        self.followed
            .values()
            .filter(|followed| followed.is_waiting())
            .map(|followed| followed.due)
            .min()
    }

    /// What to write to disk. What an earlier run left stays until its name is followed again and
    /// has an answer.
    fn to_save(&self) -> Vec<SavedDestination> {
        let mut all: Vec<SavedDestination> =
            self.followed.values().filter_map(Followed::to_save).collect();
        all.extend(self.saved.iter().cloned());
        all.sort_by(|one, two| {
            (&one.name, one.resolver)
                .cmp(&(&two.name, two.resolver))
                .then(two.resolved_at.cmp(&one.resolved_at))
        });
        all.dedup_by(|one, two| one.name == two.name && one.resolver == two.resolver);
        all
    }
}

impl Followed {
    fn is_waiting(&self) -> bool {
        !self.running && self.entry.name().is_some()
    }

    fn to_save(&self) -> Option<SavedDestination> {
        let Resolved { addresses, resolved_at, ttl, .. } =
            self.entry.is_worth_saving().then(|| self.entry.resolved())?;
        let name = self.entry.name()?.to_owned();
        Some(SavedDestination {
            name,
            resolver: self.entry.target.resolver,
            addresses,
            resolved_at,
            ttl_seconds: ttl.as_secs(),
        })
    }
}

/// What literal addresses resolve to: `before`, as long as they are the same.
fn fixed(target: Target, before: Option<Arc<Resolved>>) -> Arc<Resolved> {
    let resolved = Entry::new(target, Timestamp::now()).resolved();
    before
        .filter(|before| before.addresses == resolved.addresses)
        .unwrap_or_else(|| Arc::new(resolved))
}

/// Whether nobody has to be told of the difference.
fn alike(one: &Resolved, two: &Resolved) -> bool {
    one.addresses == two.addresses && one.freshness == two.freshness
}

/// Says what changed, once per change.
fn report(name: &str, before: &Resolved, after: &Resolved) {
    if before.addresses != after.addresses {
        tracing::info!(name, addresses = ?after.addresses, "the destination's addresses changed");
    }
    match (&before.freshness, &after.freshness) {
        (Freshness::Kept { error: old }, Freshness::Kept { error }) if old == error => {}
        (_, Freshness::Kept { error }) => tracing::warn!(
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
        (Freshness::Kept { .. } | Freshness::Unresolved { error: Some(_) }, _) => {
            tracing::info!(name, "the destination resolves again")
        }
        _ => {}
    }
}
