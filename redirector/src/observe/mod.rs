//! Observability: the admin listener with `/healthz`, `/readyz`, `/metrics` and the status page.
//!
//! | module | contains |
//! |---|---|
//! | `admin` | the listener |
//! | `health` | liveness and readiness |
//! | `catalog` | every metric, with its type, labels and help |
//! | `snapshot` | the numbers behind the metrics |
//! | `metrics` | requesting a snapshot, and encoding it |
//! | `shared_page` | one page for simultaneous requests |
//! | `route_metrics` | the metrics of routes |
//! | `labels`, `process` | the labels of a sample; the metrics of this process |
//! | `status_page` | the status page, its numbers and its live events |
//! | `page_status` | the numbers that the page shows |
//! | `event_streams` | live events for a bounded number of viewers |
//! | `viewer` | who may see the page |

mod admin;
mod catalog;
mod event_streams;
mod health;
mod labels;
mod metrics;
mod page_status;
mod process;
mod route_metrics;
mod shared_page;
mod snapshot;
mod status_page;
mod viewer;

pub use admin::Admin;
pub use catalog::{Kind, METRICS, Metric};
pub use health::Health;
pub use metrics::{Metrics, SnapshotRequests};
pub use snapshot::{
    ConfigSample, EjectionSample, EventSamples, GuestSample, GuestSamples, PoolSample, RouteSample,
    RouteSamples, Snapshot,
};
pub use viewer::is_own_host;
