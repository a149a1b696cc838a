//! The interfaces that guests are redirected on.

use crate::table_type::table_type;

/// An interface that the programs of guests are attached to. The key is its index. Only the agent
/// writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Interface {
    /// `FLAG_` bits.
    pub flags: u64,
    /// Established flows that the agent has removed since they were idle.
    pub expired: u64,
}
table_type!(Interface, 16);

impl Interface {
    /// TCP to the pool is redirected. Without it only names are answered.
    pub const FLAG_REDIRECTS: u64 = 1;
}

/// The flows of an interface: the key is its index. Only the programs write it, and the agent
/// removes it with the interface.
///
/// `opened - closed - expired` flows are established.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InterfaceFlows {
    /// Flows that were established.
    pub opened: u64,
    /// Of these, flows that ended by FIN or RST.
    pub closed: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC` when the present window of new flows began.
    pub window_ns: u64,
    /// New flows in that window, less those that were established since: a signed number.
    pub window_flows: i64,
    /// New flows that were refused for want of room, here or in the tables of flows.
    pub refused: u64,
}
table_type!(InterfaceFlows, 40);

impl InterfaceFlows {
    /// Established flows, of which the agent has removed `expired`.
    pub const fn established(&self, expired: u64) -> u64 {
        self.opened.saturating_sub(self.closed).saturating_sub(expired)
    }
}
