//! The interfaces that guests are redirected on.

use crate::table_type::table_type;

/// An interface that the programs of guests are attached to. The key is its index.
///
/// `opened - closed - expired` flows of its guest are established.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Interface {
    /// `FLAG_` bits.
    pub flags: u64,
    /// Flows that were established. Only the programs add to it.
    pub opened: u64,
    /// Of these, flows that ended by FIN or RST. Only the programs add to it.
    pub closed: u64,
    /// Of these, flows that the agent removed since they were idle. Only the agent adds to it.
    pub expired: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC` when the present window of new flows began.
    pub window_ns: u64,
    /// New flows in that window.
    pub window_flows: u64,
}
table_type!(Interface, 48);

impl Interface {
    /// TCP to the pool is redirected. Without it only names are answered.
    pub const FLAG_REDIRECTS: u64 = 1;
}
