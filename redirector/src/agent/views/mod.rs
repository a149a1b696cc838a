//! The state in the shapes of the control API and the metrics.

pub(crate) mod metrics_snapshot;
pub(crate) mod offline_status;
pub(crate) mod problems;
pub(crate) mod route_view;
