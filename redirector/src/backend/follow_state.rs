//! The targets of the follower, and which look-ups are due.

use std::{
    collections::{BTreeMap, BTreeSet},
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
use crate::route::SourceName;

/// Relative jitter of the time between two look-ups.
const JITTER: f64 = 0.1;

/// All targets.
#[derive(Debug, Default)]
pub(super) struct FollowState {
    /// Targets that are names.
    followed: BTreeMap<SourceName, Followed>,
    /// Targets that are literal addresses, which need no look-up. A full pool of routes may have
    /// nothing else.
    literal: BTreeMap<SourceName, Arc<Resolved>>,
    /// Sources whose addresses or freshness a look-up changed since the last
    /// [`FollowState::take_changed`].
    changed: BTreeSet<SourceName>,
    /// Addresses from an earlier run, for targets that are not followed yet.
    cached: Vec<CachedDestination>,
    next_generation: u64,
}

#[derive(Debug)]
struct Followed {
    resolution: Resolution,
    /// Distinguishes this target from an earlier one of the same source, whose look-up may still
    /// run.
    generation: u64,
    is_running: bool,
    due: Instant,
    last_lookup: Option<Instant>,
}

/// A look-up to make.
pub(super) struct Lookup {
    pub(super) source: SourceName,
    pub(super) name: String,
    pub(super) resolver: Option<SocketAddr>,
    generation: u64,
}

/// The state of a target before and after a look-up.
pub(super) struct Update {
    pub(super) before: Resolved,
    pub(super) after: Resolved,
}

impl FollowState {
    pub(super) fn new(cached: Vec<CachedDestination>) -> Self {
        Self { cached, ..Self::default() }
    }

    /// Replaces all targets. Those that stay keep their state.
    pub(super) fn set_targets(&mut self, targets: BTreeMap<SourceName, Target>) {
        let mut before = std::mem::take(&mut self.followed);
        before.retain(|source, followed| targets.get(source) == Some(&followed.resolution.target));
        let mut literal_before = std::mem::take(&mut self.literal);
        let (literal, names): (Vec<_>, Vec<_>) =
            targets.into_iter().partition(|(_, target)| target.destination.addresses().is_some());
        // Collected, since the nodes of a tree that grows by insertion in order are half empty.
        self.literal = literal
            .into_iter()
            .map(|(source, target)| {
                let resolved = resolve_literal(target, literal_before.remove(&source));
                (source, resolved)
            })
            .collect();
        let followed = names.into_iter().map(|(source, target)| {
            let followed = before.remove(&source).unwrap_or_else(|| self.follow(target));
            (source, followed)
        });
        self.followed = followed.collect();
    }

    /// Replaces or, with `None`, removes one target, and returns its new state. `Err` if the target
    /// is the same as before.
    pub(super) fn set_target(
        &mut self,
        source: &SourceName,
        target: Option<Target>,
    ) -> Result<Option<Arc<Resolved>>, Unchanged> {
        let current = self.followed.get(source).map(|followed| &followed.resolution.target);
        if current.is_some() && current == target.as_ref() {
            return Err(Unchanged);
        }
        self.followed.remove(source);
        let before = self.literal.remove(source);
        let Some(target) = target else { return Ok(None) };
        let resolved = if target.destination.addresses().is_some() {
            let resolved = resolve_literal(target, before);
            self.literal.insert(source.clone(), Arc::clone(&resolved));
            resolved
        } else {
            let followed = self.follow(target);
            let resolved = Arc::new(followed.resolution.resolved());
            self.followed.insert(source.clone(), followed);
            resolved
        };
        Ok(Some(resolved))
    }

    fn follow(&mut self, target: Target) -> Followed {
        let mut resolution = Resolution::new(target, Timestamp::now());
        let cached = self.cached.iter().find(|cached| {
            resolution.name() == Some(&cached.name) && resolution.target.resolver == cached.resolver
        });
        if let Some(cached) = cached {
            resolution.restore(cached.addresses.clone(), cached.resolved_at, cached.ttl());
        }
        self.next_generation += 1;
        Followed {
            resolution,
            generation: self.next_generation,
            is_running: false,
            due: Instant::now(),
            last_lookup: None,
        }
    }

    /// The state of one target; `None` if it is not followed.
    pub(super) fn resolved(&self, source: &SourceName) -> Option<Resolved> {
        match self.followed.get(source) {
            Some(followed) => Some(followed.resolution.resolved()),
            None => self.literal.get(source).map(|resolved| Resolved::clone(resolved)),
        }
    }

    /// The state of all targets.
    pub(super) fn all(&self) -> BTreeMap<SourceName, Arc<Resolved>> {
        let followed = self
            .followed
            .iter()
            .map(|(source, followed)| (source.clone(), Arc::new(followed.resolution.resolved())));
        let literal =
            self.literal.iter().map(|(source, resolved)| (source.clone(), Arc::clone(resolved)));
        followed.chain(literal).collect()
    }

    /// Whether no look-up of this source is still awaited.
    pub(super) fn has_outcome(&self, source: &SourceName) -> bool {
        self.followed.get(source).is_none_or(|followed| followed.resolution.has_outcome())
    }

    pub(super) fn mark_changed(&mut self, source: &SourceName) {
        self.changed.insert(source.clone());
    }

    pub(super) fn take_changed(&mut self) -> BTreeSet<SourceName> {
        std::mem::take(&mut self.changed)
    }

    /// Makes a look-up due now, but not before `gap` after the last one.
    pub(super) fn expedite(&mut self, source: &SourceName, gap: Duration) {
        if let Some(followed) = self.followed.get_mut(source) {
            let now = Instant::now();
            let earliest = followed.last_lookup.map_or(now, |last| now.max(last + gap));
            followed.due = followed.due.min(earliest);
        }
    }

    /// Starts up to `limit` look-ups that are due, the longest overdue first.
    pub(super) fn start_due(&mut self, limit: usize) -> Vec<Lookup> {
        let now = Instant::now();
        let mut due: Vec<_> = self
            .followed
            .iter_mut()
            .filter(|(_, followed)| followed.is_waiting() && followed.due <= now)
            .collect();
        due.sort_by_key(|(_, followed)| followed.due);
        due.truncate(limit);
        due.into_iter().filter_map(|(source, followed)| followed.start(source)).collect()
    }

    /// When the next look-up is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let waiting = self.followed.values().filter(|followed| followed.is_waiting());
        waiting.map(|followed| followed.due).min()
    }

    /// Applies the result of a look-up; `None` if its target is gone.
    pub(super) fn finish(&mut self, lookup: &Lookup, result: LookupResult) -> Option<Update> {
        let followed = self
            .followed
            .get_mut(&lookup.source)
            .filter(|followed| followed.generation == lookup.generation)?;
        let before = followed.resolution.resolved();
        let wait = followed.resolution.apply(result, Timestamp::now());
        let now = Instant::now();
        followed.is_running = false;
        followed.last_lookup = Some(now);
        followed.due = now + wait.mul_f64(rand::random_range(1.0 - JITTER..=1.0 + JITTER));
        let after = followed.resolution.resolved();
        if followed.resolution.is_fresh() {
            // The cached addresses are out of date, even if the name no longer has an address.
            self.cached
                .retain(|cached| cached.name != lookup.name || cached.resolver != lookup.resolver);
        }
        Some(Update { before, after })
    }

    /// The content of the cache file. Addresses of an earlier run stay in it until their name is
    /// followed again and has an answer.
    pub(super) fn to_cache(&self) -> Vec<CachedDestination> {
        let mut all: Vec<CachedDestination> =
            self.followed.values().filter_map(Followed::to_cache).collect();
        all.extend(self.cached.iter().cloned());
        all.sort_by(|one, two| {
            (&one.name, one.resolver)
                .cmp(&(&two.name, two.resolver))
                .then(two.resolved_at.cmp(&one.resolved_at))
        });
        all.dedup_by(|one, two| one.name == two.name && one.resolver == two.resolver);
        all
    }
}

/// The target is the same as before.
pub(super) struct Unchanged;

impl Followed {
    fn is_waiting(&self) -> bool {
        !self.is_running && self.resolution.name().is_some()
    }

    fn start(&mut self, source: &SourceName) -> Option<Lookup> {
        let name = self.resolution.name()?.to_owned();
        self.is_running = true;
        Some(Lookup {
            source: source.clone(),
            generation: self.generation,
            name,
            resolver: self.resolution.target.resolver,
        })
    }

    fn to_cache(&self) -> Option<CachedDestination> {
        let Resolved { addresses, resolved_at, ttl, .. } =
            self.resolution.is_cacheable().then(|| self.resolution.resolved())?;
        let name = self.resolution.name()?.to_owned();
        Some(CachedDestination {
            name,
            resolver: self.resolution.target.resolver,
            addresses,
            resolved_at,
            ttl_seconds: ttl.as_secs(),
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
