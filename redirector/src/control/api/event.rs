//! The JSON shapes of events: `GET /v1/events`, one object per line, which are those of
//! `redirector events -o json` as well.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

pub use redirector_common::event::{DenyReason as EventReason, EventKind as EventResult};
use serde::{Deserialize, Serialize};

use crate::route::SourceName;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventLine {
    /// An event of a connect.
    Event(Box<Event>),
    /// Events were lost here.
    Lost(Lost),
}

impl EventLine {
    /// The event, if it is one.
    pub fn event(&self) -> Option<&Event> {
        match self {
            Self::Event(event) => Some(event),
            Self::Lost(_) => None,
        }
    }
}

/// An event of a connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// [`super::VERSION`].
    pub version: u32,
    /// When it happened.
    pub at: jiff::Timestamp,
    /// What happened.
    pub result: EventResult,
    /// The reason; null unless `result` is `denied` or `passed`.
    pub reason: Option<EventReason>,
    /// The route; null when its address has no route, or no longer has one.
    pub source: Option<SourceName>,
    /// The virtual address that the client connected to.
    pub vip: IpAddr,
    /// The port that the client connected to.
    pub vip_port: u16,
    /// The backend that it was redirected to; null when it was not redirected.
    pub backend: Option<SocketAddr>,
    /// Nanoseconds since the connect; for `closed`, since it was established.
    pub elapsed_ns: u64,
    /// The traffic of the connection; null unless `result` is `closed`.
    pub traffic: Option<Traffic>,
    /// The interface of the guest that connected; null for a process of this host, which the
    /// following fields describe.
    #[serde(default)]
    pub interface: Option<String>,
    /// The process that called connect, in the node's PID namespace. 0 when unknown, as it can be
    /// for a failure while successes are sampled.
    pub pid: u32,
    /// Its command; null when the kernel did not report it and the process had ended.
    pub command: Option<String>,
    /// Its pod; null outside of pods, and where the agent has no access to the API server.
    #[serde(default)]
    pub pod: Option<PodName>,
    /// Its cgroup's directory; null when that was already removed.
    pub cgroup: Option<PathBuf>,
    /// The ID of its cgroup (the inode of its directory); 0 when unknown.
    pub cgroup_id: u64,
    /// How many events of its kind this one represents: successes are sampled while there are many,
    /// and the failures of a cgroup or guest that has many.
    pub sampling_ratio: u32,
}

#[cfg(test)]
impl Event {
    /// A failure with every field.
    pub(crate) fn sample() -> Self {
        Self {
            version: 1,
            at: jiff::Timestamp::UNIX_EPOCH,
            result: EventResult::Closed,
            reason: Some(EventReason::NoRoute),
            source: Some("a.internal".parse().expect("a source")),
            vip: [198, 18, 0, 7].into(),
            vip_port: 443,
            backend: Some(([203, 0, 113, 7], 8443).into()),
            elapsed_ns: 1_500_000,
            traffic: Some(Traffic {
                rx_bytes: 4096,
                tx_bytes: 517,
                srtt_us: 800,
                retransmitted: 1,
            }),
            interface: None,
            pid: 4711,
            command: Some("curl".into()),
            pod: None,
            cgroup: Some("/sys/fs/cgroup/kubepods/podjob".into()),
            cgroup_id: 99,
            sampling_ratio: 1,
        }
    }
}

/// A pod of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for PodName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// The traffic of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes that the peer acknowledged.
    pub tx_bytes: u64,
    /// The smoothed round-trip time at the end, in microseconds.
    pub srtt_us: u64,
    /// Retransmitted segments.
    pub retransmitted: u32,
}

/// Events lost at this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// [`super::VERSION`].
    pub version: u32,
    /// How many were lost.
    pub lost: u64,
    /// Where they were lost.
    pub lost_by: LostBy,
}

/// Where events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostBy {
    /// The kernel's ring buffer was full: no reader receives them.
    Kernel,
    /// This reader was too slow; others may have received them.
    Reader,
}

/// The query of `GET /v1/events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventQuery {
    /// Whether to follow new events until the reader disconnects.
    pub follow: bool,
    /// Only events of this route.
    pub route: Option<SourceName>,
    /// Only these results, separated by commas; all when empty.
    #[serde(deserialize_with = "results")]
    pub result: Vec<EventResult>,
    /// Only failures: every result except `established` and `closed`.
    pub failed: bool,
    /// At most this many past events; all that are kept when absent.
    pub limit: Option<usize>,
}

impl EventQuery {
    /// Whether a line matches. A line about lost events always does.
    pub fn wants(&self, line: &EventLine) -> bool {
        let Some(event) = line.event() else { return true };
        (self.route.is_none() || event.source == self.route)
            && (self.result.is_empty() || self.result.contains(&event.result))
            && (!self.failed || event.result.is_failure())
    }

    /// The query string of a URL.
    pub fn encoded(&self) -> String {
        // None of these values contains a character that needs escaping.
        let mut query = format!("follow={}&failed={}", self.follow, self.failed);
        if let Some(route) = &self.route {
            query.push_str(&format!("&route={route}"));
        }
        if let Some(limit) = self.limit {
            query.push_str(&format!("&limit={limit}"));
        }
        if !self.result.is_empty() {
            let words: Vec<_> = self.result.iter().map(|result| result.as_str()).collect();
            query.push_str(&format!("&result={}", words.join(",")));
        }
        query
    }
}

/// Deserializes words separated by commas.
fn results<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<EventResult>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    let words = text.split(',').filter(|word| !word.is_empty());
    words
        .map(|word| {
            EventResult::deserialize(serde::de::value::StrDeserializer::<D::Error>::new(word))
        })
        .collect()
}

/// Statistics of events: part of `GET /v1/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsInfo {
    /// Events emitted since the agent started.
    pub emitted: u64,
    /// Events lost because the kernel's ring buffer was full, since the maps were created.
    pub lost: u64,
    /// Failures left out since their client had too many, since the maps were created. One in 256
    /// of those of a client is emitted and represents the others.
    #[serde(default)]
    pub suppressed: u64,
    /// The sampling ratio of successes: 1 when all are emitted.
    pub sampling_ratio: u32,
    /// Readers that follow new events.
    pub readers: usize,
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn a_result_is_the_same_in_json_queries_and_arguments() {
        for result in EventResult::value_variants() {
            assert_eq!(serde_json::to_value(result).unwrap(), result.as_str());
            assert_eq!(result.to_possible_value().unwrap().get_name(), result.as_str());
        }
    }
}
