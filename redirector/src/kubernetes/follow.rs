//! The pods of this node: listed once, then watched, with everything known kept while the API
//! server does not answer.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Deserialize;
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::{
    client::{ApiError, Client},
    lines::Lines,
    pod::{Pod, RawPod},
};
use crate::error::error_chain;

/// How long a watch lasts before the agent begins another one.
const WATCH_SECONDS: u64 = 300;
/// A watch that is silent for longer is broken: the API server sends a bookmark every minute.
const IDLE: Duration = Duration::from_secs(WATCH_SECONDS + 10);
/// The first and the longest pause before another attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Pods in one part of a list.
const PAGE: usize = 500;

/// The pods of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// By the UID in the name of their cgroups.
    pub by_uid: BTreeMap<String, Pod>,
    /// Why they may be out of date; none while they are watched.
    pub error: Option<String>,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMetadata,
    items: Vec<RawPod>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    r#continue: String,
}

#[derive(Deserialize)]
struct Event {
    r#type: String,
    object: serde_json::Value,
}

/// Follows the pods of `node`, until nobody receives them any more.
pub async fn follow(client: Client, node: String, sender: watch::Sender<Option<Arc<Pods>>>) {
    let mut pause = FIRST_PAUSE;
    let mut version = None;
    let mut pods = BTreeMap::new();
    while !sender.is_closed() {
        let began = Instant::now();
        let followed = step(&client, &node, (&mut version, &mut pods), &sender).await;
        let Err(error) = followed else {
            pause = FIRST_PAUSE;
            // A watch usually ends after minutes; one that ends at once must not be a busy loop.
            sleep(pause.saturating_sub(began.elapsed())).await;
            continue;
        };
        if error.is_gone() {
            version = None;
            continue;
        }
        let error = error_chain(&error);
        warn!("the pods of this node are not watched; retrying: {error}");
        sender.send_if_modified(|sent| {
            let Some(sent) = sent else { return false };
            let is_new = sent.error.as_ref() != Some(&error);
            Arc::make_mut(sent).error = Some(error.clone());
            is_new
        });
        sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A list if the version is unknown, then a watch until it ends.
async fn step(
    client: &Client,
    node: &str,
    (version, pods): (&mut Option<String>, &mut BTreeMap<String, Pod>),
    sender: &watch::Sender<Option<Arc<Pods>>>,
) -> Result<(), ApiError> {
    let of_node = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
    let from = match version {
        Some(version) => version.clone(),
        None => {
            let (listed, from) = list(client, &of_node).await?;
            info!(pods = listed.len(), node, "the pods of this node are known");
            *pods = listed;
            version.insert(from).clone()
        }
    };
    let path = format!(
        "{of_node}&watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&\
            resourceVersion={from}"
    );
    let mut lines = Lines::new(client.stream(&path).await?, IDLE);
    publish(pods, sender);
    loop {
        let broken =
            |error: std::io::Error| ApiError::Malformed("a watch".into(), error.to_string());
        let Some(line) = lines.next().await.map_err(broken)? else { return Ok(()) };
        let (at, changed) = apply(&line, pods)?;
        version.replace(at);
        if changed {
            publish(pods, sender);
        }
    }
}

async fn list(client: &Client, of_node: &str) -> Result<(BTreeMap<String, Pod>, String), ApiError> {
    /// More parts than any node needs.
    const MAX_PAGES: usize = 100;
    let mut pods = BTreeMap::new();
    let mut next = String::new();
    for _ in 0..MAX_PAGES {
        let more = if next.is_empty() { next } else { format!("&continue={next}") };
        let part: List = client.get(&format!("{of_node}&limit={PAGE}{more}")).await?;
        let found = part.items.into_iter().map(Pod::from);
        pods.extend(found.map(|pod| (pod.uid.clone(), pod)));
        next = part.metadata.r#continue;
        if next.is_empty() {
            return Ok((pods, part.metadata.resource_version));
        }
    }
    Err(ApiError::Malformed("the list of pods".into(), "it does not end".into()))
}

/// Applies a line of a watch. Returns the version that it brings, and whether a pod has changed.
fn apply(line: &[u8], pods: &mut BTreeMap<String, Pod>) -> Result<(String, bool), ApiError> {
    let malformed =
        |error: serde_json::Error| ApiError::Malformed("a watch of pods".into(), error.to_string());
    let event: Event = serde_json::from_slice(line).map_err(malformed)?;
    if event.r#type == "ERROR" {
        let code = event.object["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let code = code.and_then(|code| hyper::StatusCode::from_u16(code).ok());
        let message = event.object["message"].as_str().unwrap_or_default().to_owned();
        let code = code.unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
        return Err(ApiError::Refused("the watch of pods".into(), code, message));
    }
    let raw: RawPod = serde_json::from_value(event.object).map_err(malformed)?;
    let version = raw.metadata.resource_version.clone();
    let changed = match event.r#type.as_str() {
        "BOOKMARK" => false,
        "DELETED" => pods.remove(&Pod::from(raw).uid).is_some(),
        _ => {
            let pod = Pod::from(raw);
            let before = pods.insert(pod.uid.clone(), pod.clone());
            before.as_ref() != Some(&pod)
        }
    };
    Ok((version, changed))
}

fn publish(pods: &BTreeMap<String, Pod>, sender: &watch::Sender<Option<Arc<Pods>>>) {
    let now = Pods { by_uid: pods.clone(), error: None };
    sender.send_if_modified(|sent| {
        let is_new = sent.as_deref() != Some(&now);
        *sent = Some(Arc::new(now));
        is_new
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(kind: &str, uid: &str, version: &str) -> Vec<u8> {
        let metadata = json!({"uid": uid, "name": "n", "resourceVersion": version});
        json!({"type": kind, "object": {"metadata": metadata}}).to_string().into()
    }

    #[test]
    fn a_watch_adds_changes_and_removes_pods() {
        let mut pods = BTreeMap::new();
        let mut after = |line: &[u8]| {
            let applied = apply(line, &mut pods).expect("a line");
            (applied, pods.len())
        };
        assert_eq!(after(&line("ADDED", "a", "1")), (("1".into(), true), 1));
        assert_eq!(after(&line("MODIFIED", "a", "2")), (("2".into(), false), 1));
        assert_eq!(after(&line("ADDED", "b", "3")), (("3".into(), true), 2));
        assert_eq!(after(&line("BOOKMARK", "", "4")), (("4".into(), false), 2));
        assert_eq!(after(&line("DELETED", "a", "5")), (("5".into(), true), 1));
    }

    #[test]
    fn an_expired_version_is_no_other_error() {
        let error = |code: u16| {
            let line = json!({"type": "ERROR", "object": {"code": code, "message": "m"}});
            apply(line.to_string().as_bytes(), &mut BTreeMap::new()).expect_err("an error")
        };
        assert!(error(410).is_gone() && !error(500).is_gone());
        assert!(apply(b"{", &mut BTreeMap::new()).is_err());
    }
}
