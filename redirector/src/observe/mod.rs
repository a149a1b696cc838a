//! What the outside may see without asking for more than a GET: the admin listener.

mod admin;
mod labels;
mod metrics;
mod process;

pub use admin::{Admin, Health};
pub use metrics::{Asking, Kind, METRICS, Metric, Metrics, RouteSample, Snapshot};
