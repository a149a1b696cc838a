//! What the shim counts.

mod counters;
mod query_stats;

pub(crate) use counters::Counters;
pub use counters::DnsCounters;
pub(crate) use query_stats::Times;
pub use query_stats::{DnsTally, Latency};
