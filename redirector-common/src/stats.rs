//! Counters. Each is a 64-bit element of its own, only ever added to, atomically, so that they never tear and never lose a count.
//!
//! They balance: `started = established + refused + timed_out + unreachable + aborted + unsent + in flight`.

use crate::table_type;

/// What became of a route's connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RouteStats {
    /// Connects that were redirected: counted when the SYN leaves, or at their end if it never does.
    pub started: u64,
    /// Connects that a backend accepted.
    pub established: u64,
    /// Connects that a backend answered with a reset.
    pub refused: u64,
    /// Connects that no backend answered.
    pub timed_out: u64,
    /// Connects that the network reported as undeliverable after a retransmission.
    pub unreachable: u64,
    /// Connects that the application gave up.
    pub aborted: u64,
    /// Connects that never left this host: no route, no source address.
    pub unsent: u64,
    /// Established connections that have ended since.
    pub closed: u64,
    /// Connects that were refused here: a port that the route does not list, no route, or no backend.
    pub denied: u64,
    /// Connects that could not be redirected and were left alone, by `on_no_backend = "pass"`.
    pub passed: u64,
    /// Connects that were sent to a backend that is set aside, since all were.
    pub desperate: u64,
    /// Nanoseconds from connect to established, summed.
    pub connect_ns: u64,
    /// Bytes received on connections that have ended.
    pub rx_bytes: u64,
    /// Bytes that the other side acknowledged on connections that have ended.
    pub tx_bytes: u64,
    /// Segments sent again on connections that have ended.
    pub retransmitted: u64,
    /// Connects that could not be made from the route's source address, which this host or the pod lacks; they went on with the kernel's choice.
    pub source_failed: u64,
}
table_type!(RouteStats, 128);

/// What became of a backend's connects. The counters mean the same as the route's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BackendStats {
    /// Connects that were sent here.
    pub started: u64,
    /// Connects that it accepted.
    pub established: u64,
    /// Connects that it answered with a reset.
    pub refused: u64,
    /// Connects that it did not answer.
    pub timed_out: u64,
    /// Connects that the network reported as undeliverable.
    pub unreachable: u64,
    /// Connects that the application gave up.
    pub aborted: u64,
    /// Connects that never left this host.
    pub unsent: u64,
    /// Established connections that have ended since.
    pub closed: u64,
    /// Not a counter: the port, as people write it, that failed last; where a probe should knock.
    pub failed_port: u64,
}
table_type!(BackendStats, 72);
