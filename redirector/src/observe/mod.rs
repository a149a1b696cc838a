//! What the outside may see without asking for more than a GET: the admin listener.
//!
//! | file | is |
//! |---|---|
//! | `admin` | the listener: `/healthz`, `/readyz`, `/metrics` |
//! | `catalog` | every metric, with its kind, labels and help |
//! | `snapshot` | the numbers that the agent tells |
//! | `metrics` | asking for them, and writing them down |
//! | `route_metrics` | what each metric says of a route |
//! | `labels`, `process` | the labels of a sample; what the system says of this process |

mod admin;
mod catalog;
mod labels;
mod metrics;
mod process;
mod route_metrics;
mod snapshot;

pub use admin::{Admin, Health};
pub use catalog::{Kind, METRICS, Metric};
pub use metrics::{Asking, Metrics};
pub use snapshot::{RouteSample, RouteSamples, Snapshot};
