//! The origin of a redirected socket: kept in socket storage, freed with the socket, readable in
//! every later hook.

use crate::{
    addr::{Ip4Be, Ip6Be, PortBe},
    backend::BackendId,
    sampling::Sampling,
    table_type::table_type,
};

/// Where a redirected socket wanted to go, where it was sent, and how far it got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Origin {
    /// `CLOCK_MONOTONIC` in nanoseconds when the first SYN was about to leave; meaningless in
    /// [`Origin::PHASE_CHOSEN`].
    pub started_ns: u64,
    /// Nanoseconds from the first SYN to established; 0 before.
    pub latency_ns: u64,
    /// The cgroup of the process that called connect, for which a failure counts. Command and
    /// process ID are recorded only while events are read, and while they are sampled only if the
    /// connect's success is reported or its failure likely.
    pub cgroup: u64,
    /// The command of the thread that called connect.
    pub comm: [u8; 16],
    /// The backend's address; an IPv4 one in its mapped form.
    pub backend: Ip6Be,
    /// The process ID in the initial pid namespace.
    pub pid: u32,
    /// The route: the VIP's index in the pool.
    pub route: u32,
    /// The backend's ID.
    pub backend_id: BackendId,
    /// The port that the client asked for.
    pub vip_port: PortBe,
    /// The port that it was sent to; 0 before the first redirected connect.
    pub backend_port: PortBe,
    /// The load balancer's idle timeout in seconds; 0: unknown.
    pub idle_seconds: u16,
    /// How far the connect got: one of the `PHASE_` constants.
    pub phase: u8,
    /// Properties and past events of the connect: `FLAG_` bits.
    pub flags: u8,
    /// Connects of this socket that were redirected before this one, up to 255.
    pub tries: u8,
    /// Which events of this connect are reported.
    pub sampling: Sampling,
    /// What the kernel's counters of the socket showed when its connect ended: `EVIDENCE_` bits.
    pub evidence: u8,
    /// With [`Origin::FLAG_SYN_RETRIES_SET`], the number that the socket had before; 0: unknown.
    pub syn_retries: u8,
    /// Zero.
    pub padding: [u8; 8],
}
table_type!(Origin, 88);

impl Origin {
    /// No connect of this socket was redirected, or its outcome is counted.
    pub const PHASE_DONE: u8 = 0;
    /// The backend is selected; nothing was sent yet.
    pub const PHASE_CHOSEN: u8 = 1;
    /// The SYN is on its way.
    pub const PHASE_CONNECTING: u8 = 2;
    /// The connection is established.
    pub const PHASE_ESTABLISHED: u8 = 3;

    /// The retransmission timer fired while connecting.
    pub const FLAG_RETRANSMITTED: u8 = 1;
    /// The kernel gave up retransmitting.
    pub const FLAG_EXPIRED: u8 = 2;
    /// The application closed the socket.
    pub const FLAG_ABORTED: u8 = 4;
    /// This connect has already counted as a failure of the backend.
    pub const FLAG_FAILURE_RECORDED: u8 = 8;
    /// The route had another eligible backend, so this one has less time to answer.
    pub const FLAG_SHORT_TIMEOUT: u8 = 16;
    /// The client asked for the IPv6 VIP.
    pub const FLAG_VIP6: u8 = 32;
    /// The programs have set the socket's number of SYN retransmissions.
    pub const FLAG_SYN_RETRIES_SET: u8 = 64;
    /// The programs have bound the socket to a source address of the route.
    pub const FLAG_BOUND: u8 = 128;

    /// The socket has received a segment.
    pub const EVIDENCE_ANSWERED: u8 = 1;
    /// The kernel has dropped the SYN: an error has ended the connect, not the application.
    pub const EVIDENCE_ERROR: u8 = 2;
    /// The socket is bound to loopback or to a device: its failures say nothing about the backend.
    pub const EVIDENCE_LOCAL: u8 = 4;
    /// The backend had reset connections when it accepted this one, whose end shows more.
    pub const EVIDENCE_AWAITED: u8 = 8;
    /// No SYN was sent although there is a route to the backend: no source port was free.
    pub const EVIDENCE_NO_PORT: u8 = 16;

    /// Whether this socket was sent to `address` and `port`. It may have been connected elsewhere
    /// since.
    pub const fn is_peer(&self, address: Ip6Be, port: PortBe) -> bool {
        let [a, b, c, d] = self.backend.0;
        let [e, f, g, h] = address.0;
        a == e
            && b == f
            && c == g
            && d == h
            && self.backend_port.0 == port.0
            && self.backend_port.0 != 0
    }

    /// Whether `address`, to which a closed socket has a destination left, is the backend's. The
    /// kernel sets the destination once it has a route, before it looks for a source port. Of an
    /// IPv6 backend it sets it before that, so nothing is known then.
    pub const fn has_route_left(&self, address: Ip4Be) -> bool {
        matches!(self.backend.as_mapped(), Some(backend) if backend.0 == address.0)
    }

    /// Whether a connect of this socket has begun and its outcome is not known yet.
    pub const fn is_in_flight(&self) -> bool {
        self.phase == Self::PHASE_CHOSEN || self.phase == Self::PHASE_CONNECTING
    }
}
