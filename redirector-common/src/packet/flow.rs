//! The flows of guests: TCP connections that are redirected packet by packet.
//!
//! A flow has two entries. The forward one is found by packets of the guest, the reverse one by
//! packets of the backend. Half-open and ended flows are in a table that drops its oldest entries;
//! established ones are in a table that drops none, so a flood of SYNs breaks no connection.

use crate::{
    addr::{Ip6Be, PortBe},
    backend::BackendId,
    table_type::table_type,
};

/// The key of a flow's entry. IPv4 addresses have their mapped form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// The guest's address.
    pub guest: Ip6Be,
    /// Forward: the VIP. Reverse: the backend.
    pub remote: Ip6Be,
    /// The guest's port. Reverse: as the backend sees it.
    pub guest_port: PortBe,
    /// The remote's port.
    pub remote_port: PortBe,
    /// The index of the guest's interface.
    pub interface: u32,
    /// The VLAN tag (`vlan_tci` with the bit of its presence), 0 without one.
    pub vlan: u32,
    /// [`FlowKey::FORWARD`] or [`FlowKey::REVERSE`].
    pub direction: u32,
}
table_type!(FlowKey, 48);

impl FlowKey {
    /// Packets of the guest.
    pub const FORWARD: u32 = 0;
    /// Packets of the backend.
    pub const REVERSE: u32 = 1;
}

/// An entry of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// Forward: the backend. Reverse: the VIP.
    pub peer: Ip6Be,
    /// The peer's port.
    pub peer_port: PortBe,
    /// Forward: the guest's port as the backend sees it. Reverse: the guest's own.
    pub guest_port: PortBe,
    /// Initial sequence number of the guest, in network order.
    pub initial_sequence: u32,
    /// The route: the VIP's index in the pool.
    pub route: u32,
    /// The backend's ID.
    pub backend_id: BackendId,
    /// `CLOCK_MONOTONIC` in nanoseconds: the SYN to this backend; once established, of that.
    pub started_ns: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds of the last packet, coarse.
    pub seen_ns: u64,
    /// Octets of the packets in this entry's direction, with their headers.
    pub bytes: u64,
    /// `STATE_` bits.
    pub state: u32,
    /// SYNs of the guest that this flow has sent to backends.
    pub syns: u32,
}
table_type!(Flow, 64);

impl Flow {
    /// A backend accepted the connection.
    pub const STATE_ESTABLISHED: u32 = 1;
    /// The guest has sent its FIN.
    pub const STATE_GUEST_FIN: u32 = 2;
    /// The backend has sent its FIN.
    pub const STATE_BACKEND_FIN: u32 = 4;
    /// One side has sent a RST.
    pub const STATE_RESET: u32 = 8;
    /// This connect has already counted as a failure of the backend.
    pub const STATE_FAILURE_RECORDED: u32 = 16;
}

/// The first SYN of a flow, which is sent again when a backend refuses. The key is the forward one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FirstSyn {
    /// The sequence number, in network order.
    pub sequence: u32,
    /// The window, in network order.
    pub window: u16,
    /// Octets of options.
    pub options_length: u16,
    /// The options, padded with zeros (end of options).
    pub options: [u64; 5],
}
table_type!(FirstSyn, 48);
