//! Objects of one kind: listed once, then watched, with everything known kept while the API server
//! does not answer.
//!
//! `kube`'s own runtime has a watcher, but it does not show when a watch works again after an
//! error, which decides here whether an unknown pod is waited for.

use std::{collections::BTreeMap, fmt::Debug, pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use kube::{
    Api, Resource,
    api::{ListParams, WatchParams},
    core::WatchEvent,
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{
    backoff::Backoff,
    client::{ApiError, answer},
};
use crate::error::error_chain;

/// How long a watch lasts before another one begins.
const WATCH_SECONDS: u32 = 290;
/// A watch that is silent for longer is broken: the API server sends a bookmark every minute.
const IDLE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// The first pause before another attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const BACKOFF: Backoff = Backoff::new(FIRST_PAUSE, Duration::from_secs(30));
/// Objects in one part of a list, and the most parts.
const PAGE: u32 = 500;
const MAX_PAGES: usize = 1000;
/// The most events of a watch that are published together.
const BATCH: usize = 1000;

/// What is known of the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed<V> {
    /// By their keys.
    pub objects: BTreeMap<String, Arc<V>>,
    /// Why they may be out of date; none while they are watched.
    pub error: Option<String>,
}

/// Where what is known goes: none until everything was listed once.
pub(crate) type Known<V> = watch::Sender<Option<Arc<Followed<V>>>>;

/// Which objects are followed, and what is kept of each.
pub(crate) struct Follow<K, V> {
    /// What they are called in messages.
    pub(crate) what: &'static str,
    /// Where they are.
    pub(crate) api: Api<K>,
    /// Only those with such fields.
    pub(crate) fields: Option<String>,
    /// The key of an object, and what is kept of it.
    pub(crate) keep: fn(K) -> (String, V),
}

/// The objects of the last version that is known.
struct State<V> {
    version: Option<String>,
    objects: BTreeMap<String, Arc<V>>,
}

impl<K, V> Follow<K, V>
where
    K: Clone + Debug + DeserializeOwned + Resource,
    V: Clone + PartialEq,
{
    /// Follows the objects until nobody receives them any more.
    pub(crate) async fn run(self, sender: Known<V>) {
        let mut backoff = BACKOFF;
        let mut state = State { version: None, objects: BTreeMap::new() };
        while !sender.is_closed() {
            let began = Instant::now();
            let Err(error) = self.step(&mut state, &sender).await else {
                backoff = BACKOFF;
                // One that ends at once must not become a busy loop.
                sleep(FIRST_PAUSE.saturating_sub(began.elapsed())).await;
                continue;
            };
            if error.is_gone() {
                state.version = None;
                continue;
            }
            let error = error_chain(&error);
            warn!("the {} are not watched; retrying: {error}", self.what);
            sender.send_if_modified(|sent| {
                let Some(sent) = sent else { return false };
                let is_new = sent.error.as_ref() != Some(&error);
                Arc::make_mut(sent).error = Some(error.clone());
                is_new
            });
            sleep(backoff.pause().mul_f64(rand::random_range(0.5..1.5))).await;
        }
    }

    /// A list if the version is unknown, then a watch until it ends.
    async fn step(&self, state: &mut State<V>, sender: &Known<V>) -> Result<(), ApiError> {
        if state.version.is_none() {
            self.list(state).await?;
            info!(count = state.objects.len(), "the {} are known", self.what);
        }
        let version = state.version.clone().unwrap_or_default();
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        params.field_selector.clone_from(&self.fields);
        let what = format!("to watch the {}", self.what);
        let events = answer(&what, self.api.watch(&params, &version)).await?;
        publish(&state.objects, sender);
        // Whatever has arrived is published together.
        let mut events = pin!(events.ready_chunks(BATCH));
        loop {
            let Ok(batch) = timeout(IDLE, events.next()).await else {
                return Err(ApiError::Silent { what, limit: IDLE });
            };
            let Some(batch) = batch else { return Ok(()) };
            let mut changed = false;
            let mut applied = Ok(());
            for event in batch {
                let event = event.map_err(|error| ApiError::of(&what, error));
                match event.and_then(|event| self.apply(event, state)) {
                    Ok(this) => changed |= this,
                    Err(error) => {
                        applied = Err(error);
                        break;
                    }
                }
            }
            if changed {
                publish(&state.objects, sender);
            }
            applied?;
        }
    }

    async fn list(&self, state: &mut State<V>) -> Result<(), ApiError> {
        let what = format!("to list the {}", self.what);
        let mut params = ListParams::default().limit(PAGE);
        params.field_selector.clone_from(&self.fields);
        let mut objects = BTreeMap::new();
        for _ in 0..MAX_PAGES {
            let part = answer(&what, self.api.list(&params)).await?;
            let kept = part.items.into_iter().map(self.keep);
            objects.extend(kept.map(|(key, value)| (key, Arc::new(value))));
            params.continue_token = part.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                let version = part.metadata.resource_version;
                *state = State { version, objects };
                return Ok(());
            }
        }
        Err(ApiError::Endless(what))
    }

    /// Applies an event of a watch. Returns whether an object has changed.
    fn apply(&self, event: WatchEvent<K>, state: &mut State<V>) -> Result<bool, ApiError> {
        let (object, is_deleted) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
            WatchEvent::Deleted(object) => (object, true),
            WatchEvent::Bookmark(bookmark) => {
                state.version = Some(bookmark.metadata.resource_version);
                return Ok(false);
            }
            WatchEvent::Error(status) => {
                let what = format!("the watch of the {}", self.what);
                return Err(ApiError::Refused { what, status });
            }
        };
        let version = object.meta().resource_version.clone();
        state.version = version.or(state.version.take());
        let (key, value) = (self.keep)(object);
        if is_deleted {
            return Ok(state.objects.remove(&key).is_some());
        }
        let before = state.objects.get(&key);
        let changed = before.is_none_or(|before| **before != value);
        if changed {
            state.objects.insert(key, Arc::new(value));
        }
        Ok(changed)
    }
}

fn publish<V: Clone + PartialEq>(objects: &BTreeMap<String, Arc<V>>, sender: &Known<V>) {
    let now = Followed { objects: objects.clone(), error: None };
    sender.send_if_modified(|sent| {
        let is_new = sent.as_deref() != Some(&now);
        *sent = Some(Arc::new(now));
        is_new
    });
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Client, Config};
    use serde_json::json;

    use super::*;

    fn follow() -> Follow<ConfigMap, String> {
        let config = Config::new("http://127.0.0.1:1".parse().expect("an address"));
        let client = Client::try_from(config).expect("a client");
        let keep = |map: ConfigMap| {
            let data = map.data.and_then(|mut data| data.remove("key")).unwrap_or_default();
            (map.metadata.name.unwrap_or_default(), data)
        };
        Follow { what: "maps", api: Api::all(client), fields: None, keep }
    }

    fn event(kind: &str, name: &str, version: &str, value: &str) -> WatchEvent<ConfigMap> {
        let event = json!({"type": kind, "object": {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "resourceVersion": version},
            "data": {"key": value},
        }});
        serde_json::from_value(event).expect("an event")
    }

    #[tokio::test]
    async fn a_watch_adds_changes_and_removes_objects() {
        let follow = follow();
        let mut state = State { version: Some("0".into()), objects: BTreeMap::new() };
        let mut after = |event: WatchEvent<ConfigMap>| {
            let changed = follow.apply(event, &mut state).expect("an event");
            (changed, state.version.clone().unwrap(), state.objects.len())
        };
        assert_eq!(after(event("ADDED", "a", "1", "x")), (true, "1".into(), 1));
        assert_eq!(after(event("MODIFIED", "a", "2", "x")), (false, "2".into(), 1));
        assert_eq!(after(event("MODIFIED", "a", "3", "y")), (true, "3".into(), 1));
        assert_eq!(after(event("ADDED", "b", "4", "x")), (true, "4".into(), 2));
        assert_eq!(after(event("BOOKMARK", "", "5", "")), (false, "5".into(), 2));
        assert_eq!(after(event("DELETED", "a", "6", "y")), (true, "6".into(), 1));
    }

    #[tokio::test]
    async fn an_expired_version_is_no_other_error() {
        let follow = follow();
        let error = |code: u16| {
            let event = json!({"type": "ERROR", "object": {"code": code, "message": "m"}});
            let event = serde_json::from_value(event).expect("an event");
            let mut state = State { version: None, objects: BTreeMap::new() };
            follow.apply(event, &mut state).expect_err("an error")
        };
        assert!(error(410).is_gone() && !error(500).is_gone());
    }
}
