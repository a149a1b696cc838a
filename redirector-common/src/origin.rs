//! What a redirected socket remembers: kept in socket storage, freed with the socket, readable in
//! every later hook.

use crate::{
    addr::{Ip6Be, PortBe},
    backend::BackendId,
    table_type::table_type,
};

/// Where a redirected socket wanted to go, where it was sent, and how far it got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Origin {
    /// `CLOCK_MONOTONIC` in nanoseconds when the first SYN was about to leave; says nothing while
    /// [`Origin::PHASE_CHOSEN`].
    pub started_ns: u64,
    /// Nanoseconds from the first SYN to established; 0 before.
    pub latency_ns: u64,
    /// The cgroup of the process that called connect. It, the command and the process id are
    /// captured only while somebody reads events, and under pressure only if the connect's success
    /// is told or its failure likely.
    pub cgroup: u64,
    /// The command of the thread that called connect.
    pub comm: [u8; 16],
    /// The backend's address; an IPv4 one in its mapped form.
    pub backend: Ip6Be,
    /// The process id, in the first pid namespace.
    pub pid: u32,
    /// The route: the VIP's index in the pool.
    pub route: u32,
    /// The backend's number ([`BackendId`]).
    pub backend_id: u32,
    /// The port that the client asked for.
    pub vip_port: PortBe,
    /// The port that it was sent to.
    pub backend_port: PortBe,
    /// The load balancer's idle time-out in seconds; 0: none is known.
    pub idle_seconds: u16,
    /// How far the connect got: one of the `PHASE_` constants.
    pub phase: u8,
    /// What was seen on the way: `MARK_` bits.
    pub marks: u8,
    /// Connects of this socket that were redirected before this one, up to 255.
    pub tries: u8,
    /// What is told of this connect: 0 for nothing, else see [`crate::event::drawn`].
    pub told: u8,
    /// Zero.
    pub padding: [u8; 6],
}
table_type!(Origin, 88);

impl Origin {
    /// No connect of this socket was redirected, or its fate is told and nothing more is to be
    /// counted.
    pub const PHASE_OVER: u8 = 0;
    /// The backend is chosen; nothing was sent yet.
    pub const PHASE_CHOSEN: u8 = 1;
    /// The SYN is on its way.
    pub const PHASE_CONNECTING: u8 = 2;
    /// The connection stands.
    pub const PHASE_ESTABLISHED: u8 = 3;

    /// The retransmission timer fired while connecting.
    pub const MARK_RETRANSMITTED: u8 = 1;
    /// The kernel gave up retransmitting.
    pub const MARK_EXPIRED: u8 = 2;
    /// The application closed the socket while connecting.
    pub const MARK_ABORTED: u8 = 4;
    /// The backend has been set aside for this attempt already.
    pub const MARK_BLAMED: u8 = 8;
    /// The route had another backend to offer, so that this one has less time to answer.
    pub const MARK_HURRIED: u8 = 16;
    /// The client asked for the IPv6 VIP.
    pub const MARK_VIP6: u8 = 32;
    /// The socket has a SYN retransmission count of ours.
    pub const MARK_LIMITED: u8 = 64;

    /// The backend that this socket was sent to last.
    pub const fn id(&self) -> BackendId {
        BackendId(self.backend_id)
    }

    /// Whether `address` and `port` are where this socket was sent: the socket may have been
    /// connected elsewhere since.
    pub const fn leads_to(&self, address: Ip6Be, port: PortBe) -> bool {
        let [a, b, c, d] = self.backend.0;
        let [e, f, g, h] = address.0;
        a == e
            && b == f
            && c == g
            && d == h
            && self.backend_port.0 == port.0
            && self.backend_port.0 != 0
    }

    /// Whether a connect of this socket has begun and its fate is not told yet.
    pub const fn is_in_flight(&self) -> bool {
        self.phase == Self::PHASE_CHOSEN || self.phase == Self::PHASE_CONNECTING
    }
}
