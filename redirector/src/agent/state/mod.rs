//! The agent's state, and bringing kernel and DNS to the desired one.

pub(crate) mod agent_state;
pub(crate) mod cluster_routes;
pub(crate) mod config_state;
pub(crate) mod desired_state;
pub(crate) mod former_pools;
pub(crate) mod healing;
mod held_routes;
mod host_check;
pub(crate) mod packet_pressure;
pub(crate) mod reconciler;
