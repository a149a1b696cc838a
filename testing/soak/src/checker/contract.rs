//! What the contract demands, and what a breach of it is.

use std::fmt;

use crate::history::{ClientInfo, Record};
use crate::profile::Profile;
use crate::timeline::Timeline;

/// What the contract demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// getpeername is the address and port that were asked for.
    PeerName,
    /// A connection leads to a load balancer that the destination's name has at its time.
    ValidBackend,
    /// A connect succeeds while a backend can be reached.
    ConnectSucceeds,
    /// A connection lives while its backend can be reached.
    ConnectionLives,
    /// A backend that fails is avoided, except for single trials.
    FailedBackendAvoided,
    /// A backend that works is not ejected, whatever a tenant does.
    WorkingBackendKept,
    /// An unlisted port is refused at once, whatever happens.
    UnlistedPortRefused,
    /// A look-up has the answer of its name's owner.
    RightAnswer,
    /// A look-up is answered.
    LookupAnswered,
    /// A look-up is answered in time while a tenant attacks.
    LookupInTime,
    /// No packet to the pool leaves the node.
    NothingLeaks,
    /// The kernel's counters equal what clients saw.
    CountersMatch,
    /// Memory, descriptors, map entries, sockets and pins do not grow.
    NothingGrows,
    /// After the last fault everything is as before.
    Recovers,
    /// A change of the operator's, or a new guest, is served.
    ChangeServed,
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::PeerName => "getpeername is what was asked for",
            Self::ValidBackend => "the peer is a valid backend",
            Self::ConnectSucceeds => "a connect succeeds while a backend can be reached",
            Self::ConnectionLives => "a connection lives while its backend can be reached",
            Self::FailedBackendAvoided => "a failed backend is avoided",
            Self::WorkingBackendKept => "a backend that works is not ejected",
            Self::UnlistedPortRefused => "an unlisted port is refused at once",
            Self::RightAnswer => "an answer is the one of the name's owner",
            Self::LookupAnswered => "a look-up is answered",
            Self::LookupInTime => "a look-up is answered in time",
            Self::NothingLeaks => "no packet to the pool leaves the node",
            Self::CountersMatch => "counters equal what clients saw",
            Self::NothingGrows => "nothing grows",
            Self::Recovers => "everything recovers",
            Self::ChangeServed => "a change is served",
        })
    }
}

/// A breach of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What was broken.
    pub rule: Rule,
    /// When.
    pub at_us: u64,
    /// Who and how.
    pub text: String,
}

/// What the operations are held against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// The faults and the published addresses.
    pub(crate) timeline: &'a Timeline,
    /// The clients, by their number.
    pub(crate) clients: &'a [ClientInfo],
    /// The profile.
    pub(crate) profile: Profile,
}

impl Context<'_> {
    pub(super) fn violation(&self, rule: Rule, record: &Record) -> Violation {
        let client = &self.clients[record.client];
        let (task, operation) = (&client.tasks[record.operation.task], &record.operation);
        let name = task.name.as_deref().unwrap_or_default();
        let text = format!(
            "{}: {} {} {name} after {:.3} s: {:?} {}",
            client.name,
            task.kind,
            task.target,
            operation.took_us as f64 / 1e6,
            operation.outcome,
            operation.detail,
        );
        Violation { rule, at_us: operation.start_us, text }
    }
}
