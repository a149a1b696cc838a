//! The DNS shim: it answers sources with their virtual addresses and forwards every other query
//! byte for byte.
//!
//! The only place that knows DNS wire format. [`bind()`] opens the sockets, [`BoundShim::serve`]
//! answers; [`Publisher::publish`] changes the answers meanwhile. [`answer()`] is the decision
//! about one query, a pure function.

mod access;
mod forward;
mod frontend;
mod local;
mod stats;
mod wire;

pub use forward::{ResolverOfSlot, UpstreamHealth, reply_matches};
pub use frontend::{BindError, BoundShim, InterceptPorts, Publisher, ShimSettings, bind};
pub use local::{
    Answer, AnswerPolicy, Decision, ForwardInfo, ReplyKind, Vip, Zone, answer, refuse,
};
pub use stats::{DnsCounters, HistogramSnapshot, QueryStatsSnapshot};
pub use wire::ReplyBuffer;
