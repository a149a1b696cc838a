//! The state in the shapes of the control API and the metrics.

mod agent_problems;
mod datapath_view;
pub(crate) mod host_sockets;
pub(crate) mod metrics_snapshot;
pub(crate) mod offline_status;
mod packet_problems;
pub(crate) mod packet_view;
pub(crate) mod route_problems;
pub(crate) mod route_view;
pub(crate) mod status;
pub(crate) mod status_line;
