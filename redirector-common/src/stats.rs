//! Counters. Each is an aligned 64-bit word that is only added to, atomically, so that it never
//! tears and never loses a count.
//!
//! They balance:
//! `started = established + refused + timed_out + unreachable + aborted + unsent + in flight`.

use crate::table_type::table_type;

/// Counters of a route's connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RouteStats {
    /// Connects that were redirected, counted when the SYN leaves, or with the outcome if it never
    /// does.
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
    /// Connects refused by the programs: no route, a port that the route does not list, or no
    /// backend.
    pub denied: u64,
    /// Connects that could not be redirected and were left alone (`on_no_backend = "pass"`).
    pub passed: u64,
    /// Connects that were sent to an ejected backend, since all were ejected.
    pub all_ejected: u64,
    /// Nanoseconds from the SYN to established, summed over established connects.
    pub connect_ns: u64,
    /// Bytes received on connections that have ended.
    pub rx_bytes: u64,
    /// Bytes that the other side acknowledged on connections that have ended.
    pub tx_bytes: u64,
    /// Segments retransmitted on connections that have ended.
    pub retransmitted: u64,
    /// Connects that could not use the route's source address, since the host or the pod lacks it.
    /// The kernel chose their source address.
    pub source_ip_failed: u64,
}
table_type!(RouteStats, 128);

/// The latencies of a route's connects. In a table of its own since ABI 3, so that programs of ABI
/// 2 could keep sharing the other counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RouteTimes {
    /// Established connects by latency: see [`latency_bucket`].
    pub latency: [u64; LATENCY_BUCKETS],
    /// Smoothed round-trip times at the end of connections in microseconds, summed. It is behind
    /// the buckets since the verifier considers a sixteenth bucket possible.
    pub srtt_us: u64,
}
table_type!(RouteTimes, 128);

/// The latencies of a backend's connects, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BackendTimes {
    /// Nanoseconds from the SYN to established, summed over established connects.
    pub connect_ns: u64,
    /// Smoothed round-trip times at the end of connections in microseconds, summed.
    pub srtt_us: u64,
}
table_type!(BackendTimes, 16);

/// Buckets of [`RouteTimes::latency`].
pub const LATENCY_BUCKETS: usize = 15;

/// The first bucket ends at 2 to this nanoseconds (131 µs). Each next one ends at twice the time,
/// up to 1.07 s (the first retransmission of a SYN comes after 1 s); the last one has no end.
pub const FIRST_BUCKET_BITS: u32 = 17;

/// The bucket of a connect that was established after `ns` nanoseconds, below [`LATENCY_BUCKETS`].
///
/// It has no branch: without CAP_PERFMON the arithmetic on a pointer into a map must be the same on
/// every path ("R0 tried to add from different maps, paths or scalars").
#[inline(always)]
pub const fn latency_bucket(ns: u64) -> u64 {
    // Sets all bits below the highest set one, keeps as many as there are further buckets, and
    // counts them.
    let mut ones = ns >> FIRST_BUCKET_BITS;
    ones |= ones >> 1;
    ones |= ones >> 2;
    ones |= ones >> 4;
    ones |= ones >> 8;
    ones |= ones >> 16;
    ones |= ones >> 32;
    ones &= (1 << (LATENCY_BUCKETS - 1)) - 1;
    let pairs = ones - ((ones >> 1) & 0x5555);
    let fours = (pairs & 0x3333) + ((pairs >> 2) & 0x3333);
    let eights = (fours + (fours >> 4)) & 0x0f0f;
    (eights + (eights >> 8)) & 0xf
}

/// The end of a bucket in nanoseconds, exclusive; none for the last one.
pub const fn latency_bound_ns(bucket: usize) -> Option<u64> {
    if bucket + 1 < LATENCY_BUCKETS { Some(1 << (FIRST_BUCKET_BITS + bucket as u32)) } else { None }
}

/// Counters of a backend's connects, with the same meanings as those of the route.
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
    /// Not a counter: the port that failed last, in host order, which probes connect to.
    pub failed_port: u64,
}
table_type!(BackendStats, 72);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_in_the_bucket_with_its_bounds() {
        for bits in 0..64 {
            for ns in [(1_u64 << bits) - 1, 1 << bits, (1 << bits) + 1] {
                let bucket = latency_bucket(ns) as usize;
                assert!(bucket < LATENCY_BUCKETS, "{ns}: {bucket}");
                assert!(latency_bound_ns(bucket).is_none_or(|bound| ns < bound), "{ns}: {bucket}");
                assert!(
                    bucket == 0 || ns >= latency_bound_ns(bucket - 1).unwrap(),
                    "{ns}: {bucket}"
                );
            }
        }
        assert_eq!((latency_bucket(0), latency_bucket(u64::MAX)), (0, 14));
        assert_eq!(latency_bound_ns(13), Some(1 << 30));
    }
}
