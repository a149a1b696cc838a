//! The DNS shim: it answers sources with their virtual addresses and forwards every other query
//! byte for byte.
//!
//! [`bind()`] opens the sockets, [`BoundShim::serve`] answers, and [`Publisher::publish`] changes
//! the answers. [`answer()`] is the decision about one query, a pure function. Only this module
//! reads and writes the DNS wire format itself.

mod access;
mod forward;
mod frontend;
mod local;
mod stats;
mod wire;

pub use forward::{UpstreamHealth, reply_matches};
pub use frontend::{BindError, BoundShim, InterceptPorts, Publisher, ShimSettings, adopt, bind};
pub use local::{
    Answer, AnswerPolicy, Decision, ForwardInfo, ReplyKind, Vip, Zone, answer, refuse,
};
pub use stats::{DnsCounters, HistogramSnapshot, QueryStatsSnapshot};
pub use wire::ReplyBuffer;
