//! The counters and histograms of the shim.

mod counters;
mod histogram;
mod query_stats;

pub(crate) use counters::Counters;
pub use counters::DnsCounters;
pub(crate) use histogram::Histogram;
pub use histogram::HistogramSnapshot;
pub use query_stats::QueryStatsSnapshot;
