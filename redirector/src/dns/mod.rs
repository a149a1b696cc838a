//! The DNS shim: it answers the sources with their virtual addresses and passes everything else on,
//! byte for byte.
//!
//! The only place that knows DNS wire format. [`bind()`] opens the sockets, [`BoundShim::serve`]
//! answers; [`Publisher::publish`] changes the answers while it serves. [`answer`] is the decision
//! about one query, a pure function.

mod access;
mod answers;
mod batch;
mod bind;
mod counters;
mod exchange;
mod forward;
mod holder;
mod host;
mod limits;
mod loops;
mod quota;
mod respond;
mod shards;
mod shim;
mod slots;
mod sockets;
mod tally;
mod tcp;
mod udp;
mod upstreams;
mod wire;

pub use answers::{Answer, Answers, Vip};
pub use bind::BindError;
pub use counters::DnsCounters;
pub use exchange::fits;
pub use holder::Holder;
pub use respond::{Kind, Outcome, Question, Terms, answer, refuse};
pub use shim::{BoundShim, Publisher, ShimSettings, bind};
pub use slots::{ResolverOfSlot, SlotPorts};
pub use tally::{DnsTally, Latency};
pub use upstreams::UpstreamHealth;
pub use wire::Reply;
