//! The targets of the follower, and which look-ups are due. Sources with the same name and resolver
//! share one look-up.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    address_cache::CachedDestination,
    lookup::LookupResult,
    resolution::Resolution,
    target::{Resolved, Target},
};
use crate::route::{Destination, SourceName};

/// Relative jitter of the time between two look-ups.
const JITTER: f64 = 0.1;

/// A name, and the server to query for it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LookupKey {
    pub(super) name: String,
    pub(super) resolver: Option<SocketAddr>,
}

/// All targets.
#[derive(Debug, Default)]
pub(super) struct FollowState {
    by_source: BTreeMap<SourceName, Followed>,
    names: HashMap<Arc<LookupKey>, FollowedName>,
    /// When each name is looked up next; those with a look-up under way are missing.
    due: BTreeSet<(Instant, Arc<LookupKey>)>,
    /// Sources whose addresses or freshness a look-up changed since the last
    /// [`FollowState::take_changed`].
    changed: BTreeSet<SourceName>,
    /// Addresses from an earlier run, for names that have no answer yet.
    cached: HashMap<LookupKey, CachedDestination>,
}

/// The target of a source.
#[derive(Debug)]
enum Followed {
    /// Literal addresses, which need no look-up. A full pool of routes may have nothing else.
    Literal(Arc<Resolved>),
    Name(Arc<LookupKey>),
}

/// A name, with the sources whose destination it is.
#[derive(Debug)]
struct FollowedName {
    sources: BTreeSet<SourceName>,
    resolution: Resolution,
    resolved: Arc<Resolved>,
    /// When the next look-up is due; `None` while one is under way.
    due: Option<Instant>,
    last_lookup: Option<Instant>,
}

/// The state of a name before and after a look-up.
pub(super) struct Update {
    pub(super) before: Arc<Resolved>,
    pub(super) after: Arc<Resolved>,
}

impl FollowState {
    pub(super) fn new(cached: Vec<CachedDestination>) -> Self {
        let keyed = |cached: CachedDestination| {
            (LookupKey { name: cached.name.clone(), resolver: cached.resolver }, cached)
        };
        Self { cached: cached.into_iter().map(keyed).collect(), ..Self::default() }
    }

    /// Replaces all targets. Names that stay keep their state.
    pub(super) fn set_targets(&mut self, targets: BTreeMap<SourceName, Target>) {
        let mut before = std::mem::take(&mut self.by_source);
        self.names.values_mut().for_each(|followed| followed.sources.clear());
        // Collected, since the nodes of a tree that grows by insertion in order are half empty.
        self.by_source = targets
            .into_iter()
            .map(|(source, target)| {
                let before = before.remove(&source);
                let followed = self.follow(&source, target, before);
                (source, followed)
            })
            .collect();
        self.names.retain(|_, followed| !followed.sources.is_empty());
        self.due.retain(|(_, key)| self.names.contains_key(key));
    }

    /// Replaces or, with `None`, removes one target.
    pub(super) fn set_target(&mut self, source: &SourceName, target: Option<Target>) {
        let before = self.by_source.remove(source);
        let key_before = match &before {
            Some(Followed::Name(key)) => Some(Arc::clone(key)),
            _ => None,
        };
        if let Some(target) = target {
            let followed = self.follow(source, target, before);
            self.by_source.insert(source.clone(), followed);
        }
        let key_after = match self.by_source.get(source) {
            Some(Followed::Name(key)) => Some(key),
            _ => None,
        };
        if let Some(key) = key_before.filter(|key| key_after != Some(key)) {
            self.unfollow(source, &key);
        }
    }

    /// Follows the target of a source, whose target was `before`.
    fn follow(
        &mut self,
        source: &SourceName,
        target: Target,
        before: Option<Followed>,
    ) -> Followed {
        let Destination::Name(name) = &target.destination else {
            let literal = match before {
                Some(Followed::Literal(resolved)) => Some(resolved),
                _ => None,
            };
            return Followed::Literal(resolve_literal(target, literal));
        };
        let key = LookupKey { name: name.clone(), resolver: target.resolver };
        if let Some((key, _)) = self.names.get_key_value(&key) {
            let key = Arc::clone(key);
            let followed = self.names.get_mut(&key).expect("the name is followed");
            followed.sources.insert(source.clone());
            return Followed::Name(key);
        }
        let key = Arc::new(key);
        let followed = self.new_name(&key, source, target);
        self.due.extend(followed.due.map(|due| (due, Arc::clone(&key))));
        self.names.insert(Arc::clone(&key), followed);
        Followed::Name(key)
    }

    fn new_name(&self, key: &LookupKey, source: &SourceName, target: Target) -> FollowedName {
        let mut resolution = Resolution::new(target, Timestamp::now());
        if let Some(cached) = self.cached.get(key) {
            resolution.restore(cached.addresses.clone(), cached.resolved_at, cached.ttl());
        }
        FollowedName {
            sources: BTreeSet::from([source.clone()]),
            resolved: Arc::new(resolution.resolved()),
            resolution,
            due: Some(Instant::now()),
            last_lookup: None,
        }
    }

    fn unfollow(&mut self, source: &SourceName, key: &Arc<LookupKey>) {
        let Some(followed) = self.names.get_mut(key) else { return };
        followed.sources.remove(source);
        if followed.sources.is_empty() {
            let due = followed.due;
            self.names.remove(key);
            if let Some(due) = due {
                self.due.remove(&(due, Arc::clone(key)));
            }
        }
    }

    /// The state of one target; `None` if it is not followed.
    pub(super) fn resolved(&self, source: &SourceName) -> Option<Arc<Resolved>> {
        self.by_source.get(source).map(|followed| self.resolved_of(followed))
    }

    /// The state of all targets.
    pub(super) fn all(&self) -> BTreeMap<SourceName, Arc<Resolved>> {
        let resolved =
            |(source, followed): (&SourceName, _)| (source.clone(), self.resolved_of(followed));
        self.by_source.iter().map(resolved).collect()
    }

    fn resolved_of(&self, followed: &Followed) -> Arc<Resolved> {
        match followed {
            Followed::Literal(resolved) => Arc::clone(resolved),
            Followed::Name(key) => Arc::clone(&self.names[key].resolved),
        }
    }

    /// Whether no look-up of this source is still awaited.
    pub(super) fn has_outcome(&self, source: &SourceName) -> bool {
        match self.by_source.get(source) {
            Some(Followed::Name(key)) => self.names[key].resolution.has_outcome(),
            Some(Followed::Literal(_)) | None => true,
        }
    }

    /// Whether a look-up of this source has ended, in whatever way.
    pub(super) fn was_looked_up(&self, source: &SourceName) -> bool {
        match self.by_source.get(source) {
            Some(Followed::Name(key)) => self.names[key].last_lookup.is_some(),
            Some(Followed::Literal(_)) | None => true,
        }
    }

    /// Up to `limit` of the sources that look-ups have changed.
    pub(super) fn take_changed(&mut self, limit: usize) -> Vec<SourceName> {
        let rest = match self.changed.iter().nth(limit).cloned() {
            Some(first) => self.changed.split_off(&first),
            None => BTreeSet::new(),
        };
        std::mem::replace(&mut self.changed, rest).into_iter().collect()
    }

    /// Whether [`FollowState::take_changed`] would return anything.
    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Makes a look-up due now, but not before `gap` after the last one.
    pub(super) fn expedite(&mut self, source: &SourceName, gap: Duration) {
        let Some(Followed::Name(key)) = self.by_source.get(source) else { return };
        let key = Arc::clone(key);
        let Some(followed) = self.names.get_mut(&key) else { return };
        let now = Instant::now();
        let earliest = followed.last_lookup.map_or(now, |last| now.max(last + gap));
        if let Some(due) = followed.due.filter(|due| *due > earliest) {
            followed.due = Some(earliest);
            self.due.remove(&(due, Arc::clone(&key)));
            self.due.insert((earliest, key));
        }
    }

    /// Starts up to `limit` look-ups that are due, the longest overdue first.
    pub(super) fn start_due(&mut self, limit: usize) -> Vec<Arc<LookupKey>> {
        let now = Instant::now();
        let mut started = Vec::new();
        while started.len() < limit && self.due.first().is_some_and(|(due, _)| *due <= now) {
            let Some((_, key)) = self.due.pop_first() else { break };
            if let Some(followed) = self.names.get_mut(&key) {
                followed.due = None;
                started.push(key);
            }
        }
        started
    }

    /// When the next look-up is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Applies the result of a look-up; `None` if its name is no longer followed.
    pub(super) fn finish(&mut self, key: &Arc<LookupKey>, result: LookupResult) -> Option<Update> {
        let followed = self.names.get_mut(key)?;
        let wait = followed.resolution.apply(result, Timestamp::now());
        let now = Instant::now();
        let due = now + wait.mul_f64(rand::random_range(1.0 - JITTER..=1.0 + JITTER));
        followed.last_lookup = Some(now);
        // A name that was followed again meanwhile has a look-up due already.
        if let Some(due) = followed.due.replace(due) {
            self.due.remove(&(due, Arc::clone(key)));
        }
        self.due.insert((due, Arc::clone(key)));
        if followed.resolution.is_fresh() {
            // The cached addresses are out of date, even if the name no longer has an address.
            self.cached.remove(&**key);
        }
        let after = Arc::new(followed.resolution.resolved());
        let before = std::mem::replace(&mut followed.resolved, Arc::clone(&after));
        if !before.is_equivalent(&after) {
            self.changed.extend(followed.sources.iter().cloned());
        }
        Some(Update { before, after })
    }

    /// The content of the cache file. Addresses of an earlier run stay in it until their name is
    /// followed again and has an answer.
    pub(super) fn to_cache(&self) -> Vec<CachedDestination> {
        let followed = self.names.iter().filter_map(|(key, followed)| followed.to_cache(key));
        let kept = self.cached.iter().filter(|(key, _)| {
            self.names.get(*key).is_none_or(|followed| !followed.resolution.is_cacheable())
        });
        let mut all: Vec<_> = followed.chain(kept.map(|(_, cached)| cached.clone())).collect();
        all.sort_by(|one, two| (&one.name, one.resolver).cmp(&(&two.name, two.resolver)));
        all
    }
}

impl FollowedName {
    fn to_cache(&self, key: &LookupKey) -> Option<CachedDestination> {
        self.resolution.is_cacheable().then(|| CachedDestination {
            name: key.name.clone(),
            resolver: key.resolver,
            addresses: self.resolved.addresses.clone(),
            resolved_at: self.resolved.resolved_at,
            ttl_seconds: self.resolved.ttl.as_secs(),
        })
    }
}

/// The state of literal addresses: `before`, if the addresses are the same.
fn resolve_literal(target: Target, before: Option<Arc<Resolved>>) -> Arc<Resolved> {
    let resolved = Resolution::new(target, Timestamp::now()).resolved();
    before
        .filter(|before| before.addresses == resolved.addresses)
        .unwrap_or_else(|| Arc::new(resolved))
}
