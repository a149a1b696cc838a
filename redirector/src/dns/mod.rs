//! The DNS shim: it answers the sources with their virtual addresses and passes everything else on,
//! byte for byte.
//!
//! The only place that knows DNS wire format. [`bind()`] opens the sockets, [`BoundShim::serve`]
//! answers; [`Publisher::publish`] changes the answers while it serves. [`answer`] is the decision
//! about one query, a pure function.

mod access;
mod forward;
mod frontend;
mod local;
mod stats;
mod wire;

pub(crate) use forward::Transport;
pub use forward::{UpstreamHealth, fits};
pub use frontend::{
    BindError, BoundShim, Publisher, ResolverOfSlot, ShimSettings, SlotPorts, bind,
};
pub use local::{Answer, Answers, Kind, Outcome, Question, Terms, Vip, answer, refuse};
pub use stats::{DnsCounters, DnsTally, Latency};
pub use wire::Reply;
