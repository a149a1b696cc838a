//! What the agent tells everybody who can read the pins.

use crate::{addr::Ip4Be, table_type};

/// The one element of the agent's table: whose tables these are, and the agent's sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AgentState {
    /// `CLOCK_MONOTONIC` in nanoseconds at the agent's last sign of life; 0 before the first.
    pub heartbeat_ns: u64,
    /// [`crate::abi::ABI`] of the binary that made the tables.
    pub abi: u32,
    /// Process id of the agent, in its own pid namespace.
    pub pid: u32,
    /// First address of the IPv4 pool.
    pub pool_base: Ip4Be,
    /// Length of the IPv4 pool's prefix.
    pub pool_prefix: u32,
}
table_type!(AgentState, 24);
