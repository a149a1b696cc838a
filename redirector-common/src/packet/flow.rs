//! The flows of guests: TCP connections that are redirected packet by packet.
//!
//! A flow has two entries. The forward one is found by packets of the guest and has the flow's
//! state; the reverse one is found by packets of the backend. Half-open and ended flows are in a
//! table that drops its oldest entries; established ones are in a table that drops none, so a flood
//! of SYNs breaks no connection.

use crate::{
    addr::{Ip4Be, Ip6Be, PortBe},
    backend::BackendId,
    table_type::table_type,
};

/// Entries of the table of established flows: two for each flow.
pub const FLOW_ENTRIES: u32 = 131_072;

/// Entries of the table of half-open and ended flows.
pub const BRIEF_FLOW_ENTRIES: u32 = 65_536;

/// Established flows that one interface may have: a quarter of the table.
pub const MAX_INTERFACE_FLOWS: u64 = FLOW_ENTRIES as u64 / 2 / 4;

/// SYNs without an answer that one interface may have in a window of [`WINDOW_NS`]. A flood at this
/// rate leaves other interfaces' half-open flows 1.6 s, longer than a SYN's first retransmission.
pub const MAX_WINDOW_FLOWS: i64 = 2000;

/// The window in which an interface's new flows are limited.
pub const WINDOW_NS: u64 = 100_000_000;

/// The most backends that are tried for one SYN before its reset is passed on.
pub const MAX_TRIES: u32 = 16;

/// The key of a flow's entry. IPv4 addresses have their mapped form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
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
    /// The VLAN's ID with [`FlowKey::TAGGED`], 0 without a tag.
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
    /// The packet has a VLAN tag.
    pub const TAGGED: u32 = 0x1000;

    /// The key of the other direction, if `flow` is this key's entry.
    pub const fn other_side(&self, flow: &Flow) -> Self {
        Self {
            remote: flow.peer,
            guest_port: flow.guest_port,
            remote_port: flow.peer_port,
            direction: self.direction ^ Self::REVERSE,
            ..*self
        }
    }
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
    /// Initial sequence number of the guest, in host order.
    pub initial_sequence: u32,
    /// The route: the VIP's index in the pool.
    pub route: u32,
    /// The backend's ID.
    pub backend_id: BackendId,
    /// `CLOCK_MONOTONIC` in nanoseconds: the SYN to this backend; once established, of that.
    pub started_ns: u64,
    /// The agent's heartbeat when the last packet of this direction came.
    pub seen_ns: u64,
    /// Octets of payload in this entry's direction.
    pub bytes: u64,
    /// See [`FlowState`]. A reverse entry has the state of the time when it was written.
    pub state: FlowState,
    /// Half-open: connects that the backend had accepted when the SYN left, modulo 2³². Then: the
    /// index of the interface that the backend's answer came in by, 0 for one of this host.
    pub origin: u32,
}
table_type!(Flow, 64);

/// The state of a flow in one word.
///
/// | bits | content |
/// |---|---|
/// | 0–7 | flags |
/// | 8–15 | [`Sampling`](crate::sampling::Sampling) of the flow's events |
/// | 16–31 | octets of data in the SYN |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct FlowState(pub u32);

impl FlowState {
    /// A backend accepted the connection.
    pub const ESTABLISHED: u32 = 1;
    /// The guest has sent its FIN.
    pub const GUEST_FIN: u32 = 2;
    /// The backend has sent its FIN.
    pub const BACKEND_FIN: u32 = 4;
    /// One side has sent a RST.
    pub const RESET: u32 = 8;
    /// The outcome of this connect was counted as a failure of the backend.
    pub const FAILED: u32 = 16;
    /// The RST was the backend's.
    pub const BACKEND_RESET: u32 = 32;

    /// Whether all of `flags` are set.
    #[inline(always)]
    pub const fn has(self, flags: u32) -> bool {
        self.0 & flags == flags
    }

    /// With `flags`.
    #[inline(always)]
    pub const fn with(self, flags: u32) -> Self {
        Self(self.0 | flags)
    }

    /// No backend has accepted the connection yet, and none has refused it for good.
    #[inline(always)]
    pub const fn is_half_open(self) -> bool {
        self.0 & (Self::ESTABLISHED | Self::RESET) == 0
    }

    /// Ended by a RST or by the FINs of both sides.
    #[inline(always)]
    pub const fn is_ended(self) -> bool {
        self.has(Self::RESET) || self.has(Self::GUEST_FIN | Self::BACKEND_FIN)
    }

    /// Ended by a RST of the backend, before a FIN of either side.
    #[inline(always)]
    pub const fn is_backend_reset(self) -> bool {
        self.0 & (Self::BACKEND_RESET | Self::GUEST_FIN | Self::BACKEND_FIN) == Self::BACKEND_RESET
    }

    /// Octets of data in the SYN.
    #[inline(always)]
    pub const fn syn_octets(self) -> u32 {
        self.0 >> 16
    }
}

/// A half-open or ended flow. Its first part is the entry of an established one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BriefFlow {
    /// The flow.
    pub flow: Flow,
    /// Forward: the SYN, which is sent again when a backend refuses it.
    pub syn: FirstSyn,
}
table_type!(BriefFlow, 112);

/// The header of a SYN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FirstSyn {
    /// The window, in network order.
    pub window: u16,
    /// Octets of options.
    pub options_length: u8,
    /// The flags, ECN's included.
    pub flags: u8,
    /// Backends that this flow was sent to.
    pub tries: u32,
    /// The options, padded with zeros (end of options).
    pub options: [u64; 5],
}
table_type!(FirstSyn, 48);

/// The bit of the filter of backends for an IPv4 address, below 65,536.
#[inline(always)]
pub const fn filter_bit4(address: Ip4Be) -> u32 {
    address.0.wrapping_mul(0x9e37_79b1) >> 16
}

/// The bit of the filter of backends for an IPv6 address, below 65,536.
#[inline(always)]
pub const fn filter_bit6(address: Ip6Be) -> u32 {
    let [a, b, c, d] = address.0;
    let folded = a.rotate_left(16) ^ b.rotate_left(8) ^ c.rotate_left(24) ^ d;
    folded.wrapping_mul(0x9e37_79b1) >> 16
}

/// The bit of the filter of backends for an address, an IPv4 one in its mapped form.
pub const fn filter_bit(address: Ip6Be) -> u32 {
    match address.as_mapped() {
        Some(address) => filter_bit4(address),
        None => filter_bit6(address),
    }
}

/// Words of 64 bits in the filter of backends.
pub const FILTER_WORDS: u32 = 1024;
