//! The JSON shapes of events: `GET /v1/events`, one object per line, which are those of
//! `redirector events -o json` as well.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::route::SourceName;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventLine {
    /// Something happened to a connect.
    Event(Box<Event>),
    /// Events are missing here.
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

/// Something that happened to a connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// [`super::VERSION`].
    pub version: u32,
    /// When.
    pub at: jiff::Timestamp,
    /// What.
    pub result: EventResult,
    /// Why; null unless `result` is `denied` or `passed`.
    pub reason: Option<EventReason>,
    /// The route; null when its address has none, or none any more.
    pub source: Option<SourceName>,
    /// The virtual address that was asked for.
    pub vip: IpAddr,
    /// The port that was asked for.
    pub vip_port: u16,
    /// Where it was sent; null when it was not.
    pub backend: Option<SocketAddr>,
    /// Nanoseconds from the connect to this; for `closed`, from established to this.
    pub elapsed_ns: u64,
    /// What was carried; null unless `result` is `closed`.
    pub traffic: Option<Traffic>,
    /// The process that called connect, as the node counts it. 0 when it was not asked for: so it
    /// may be with a failure under pressure, the first one of its backend.
    pub pid: u32,
    /// Its command; null when the kernel did not tell it and the process was gone before it was
    /// looked for.
    pub command: Option<String>,
    /// Its cgroup's directory; null when that was gone before it was looked for.
    pub cgroup: Option<PathBuf>,
    /// The ID of its cgroup (the inode of its directory); 0 as above.
    pub cgroup_id: u64,
    /// Under pressure not every success is told; this one stands for so many.
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
            pid: 4711,
            command: Some("curl".into()),
            cgroup: Some("/sys/fs/cgroup/kubepods/podjob".into()),
            cgroup_id: 99,
            sampling_ratio: 1,
        }
    }
}

/// What became of a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum EventResult {
    /// A backend accepted it.
    Established,
    /// It was established, and has ended.
    Closed,
    /// A backend refused it.
    Refused,
    /// It was not answered.
    TimedOut,
    /// The network reported it as undeliverable.
    Unreachable,
    /// The application gave it up.
    Aborted,
    /// It never left this host.
    Unsent,
    /// It was refused here.
    Denied,
    /// It was left alone, by `on_no_backend = "pass"`.
    Passed,
}

impl EventResult {
    /// For a person.
    pub fn words(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::TimedOut => "timed out",
            Self::Unreachable => "unreachable",
            Self::Aborted => "given up",
            Self::Unsent => "never sent",
            Self::Denied => "denied",
            Self::Passed => "left alone",
        }
    }

    /// The word that JSON has.
    pub fn word(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Aborted => "aborted",
            Self::Unsent => "unsent",
            Self::Denied => "denied",
            Self::Passed => "passed",
        }
    }

    /// Whether somebody did not get what they asked for.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Established | Self::Closed)
    }
}

/// Why a connect was not redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventReason {
    /// The address has no route.
    NoRoute,
    /// The route does not list the port.
    PortNotListed,
    /// The route has no backend that the socket could reach.
    NoBackend,
    /// The kernel had no memory to remember it.
    NoMemory,
}

impl EventReason {
    /// In words, for a person.
    pub fn words(self) -> &'static str {
        match self {
            Self::NoRoute => "no route",
            Self::PortNotListed => "port not listed",
            Self::NoBackend => "no backend",
            Self::NoMemory => "no memory",
        }
    }
}

/// What a connection has carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes that the other side acknowledged.
    pub tx_bytes: u64,
    /// The smoothed round-trip time at the end, in microseconds.
    pub srtt_us: u64,
    /// Segments sent again.
    pub retransmitted: u32,
}

/// Events that are missing at this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// [`super::VERSION`].
    pub version: u32,
    /// How many.
    pub lost: u64,
    /// Where.
    pub lost_by: LostBy,
}

/// Where events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostBy {
    /// The ring between kernel and agent was full: nobody will ever know of them.
    Kernel,
    /// This reader was too slow; others may have them.
    Reader,
}

/// Which events, of `GET /v1/events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventQuery {
    /// Whether to go on with what happens from now on, until the reader leaves.
    pub follow: bool,
    /// Only those of this route.
    pub route: Option<SourceName>,
    /// Only these results, in a query with commas between them; all when empty.
    #[serde(deserialize_with = "results")]
    pub result: Vec<EventResult>,
    /// Only those of connects that did not get through: every result but `established` and
    /// `closed`.
    pub failed: bool,
    /// At most this many of what has happened; all that is kept when absent.
    pub limit: Option<usize>,
}

impl EventQuery {
    /// Whether a line is asked for. What was lost concerns everybody.
    pub fn wants(&self, line: &EventLine) -> bool {
        let Some(event) = line.event() else { return true };
        (self.route.is_none() || event.source == self.route)
            && (self.result.is_empty() || self.result.contains(&event.result))
            && (!self.failed || event.result.is_failure())
    }

    /// As it is written behind the path.
    pub fn encoded(&self) -> String {
        // None of these words has a letter that would need escaping.
        let mut query = format!("follow={}&failed={}", self.follow, self.failed);
        if let Some(route) = &self.route {
            query.push_str(&format!("&route={route}"));
        }
        if let Some(limit) = self.limit {
            query.push_str(&format!("&limit={limit}"));
        }
        if !self.result.is_empty() {
            let words: Vec<_> = self.result.iter().map(|result| result.word()).collect();
            query.push_str(&format!("&result={}", words.join(",")));
        }
        query
    }
}

/// Words with commas between them.
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

/// How events fare: part of `GET /v1/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsInfo {
    /// Events told since the agent's start.
    pub emitted: u64,
    /// Events that the ring between kernel and agent did not take, since the tables were made.
    pub lost: u64,
    /// Of so many successes one is told; 1 unless there is pressure.
    pub sampling_ratio: u32,
    /// Readers that follow.
    pub readers: usize,
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn a_result_has_one_word_in_json_queries_and_on_the_command_line() {
        for result in EventResult::value_variants() {
            assert_eq!(serde_json::to_value(result).unwrap(), result.word());
            assert_eq!(result.to_possible_value().unwrap().get_name(), result.word());
        }
    }
}
