//! Observability: the admin listener with `/healthz`, `/readyz` and `/metrics`.
//!
//! | module | contains |
//! |---|---|
//! | `admin` | the listener |
//! | `catalog` | every metric, with its type, labels and help |
//! | `snapshot` | the numbers behind the metrics |
//! | `metrics` | requesting a snapshot, and encoding it |
//! | `shared_scrape` | one page for simultaneous scrapes |
//! | `route_metrics` | the metrics of routes |
//! | `labels`, `process` | the labels of a sample; the metrics of this process |

mod admin;
mod catalog;
mod labels;
mod metrics;
mod process;
mod route_metrics;
mod shared_scrape;
mod snapshot;

pub use admin::{Admin, Health};
pub use catalog::{Kind, METRICS, Metric};
pub use metrics::{Metrics, SnapshotRequests};
pub use snapshot::{
    ConfigSample, EjectionSample, EventSamples, GuestSample, GuestSamples, PoolSample, RouteSample,
    RouteSamples, Snapshot,
};
