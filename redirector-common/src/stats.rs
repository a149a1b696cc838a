//! Counters. Each is a 64-bit element of its own, only ever added to, atomically, so that they
//! never tear and never lose a count.
//!
//! They balance:
//! `started = established + refused + timed_out + unreachable + aborted + unsent + in flight`.

use crate::table_type::table_type;

/// What became of a route's connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RouteStats {
    /// Connects that were redirected: counted when the SYN leaves, or at their end if it never
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
    /// Connects that were refused here: a port that the route does not list, no route, or no
    /// backend.
    pub denied: u64,
    /// Connects that could not be redirected and were left alone, by `on_no_backend = "pass"`.
    pub passed: u64,
    /// Connects that were sent to a backend that is set aside, since all were.
    pub all_ejected: u64,
    /// Nanoseconds from connect to established, summed.
    pub connect_ns: u64,
    /// Bytes received on connections that have ended.
    pub rx_bytes: u64,
    /// Bytes that the other side acknowledged on connections that have ended.
    pub tx_bytes: u64,
    /// Segments sent again on connections that have ended.
    pub retransmitted: u64,
    /// Connects that could not be made from the route's source address, which this host or the pod
    /// lacks; they went on with the kernel's choice.
    pub source_ip_failed: u64,
}
table_type!(RouteStats, 128);

/// How long a route's connects took. In a table of its own since ABI 3, so that the counters of ABI
/// 2 go on being shared with its programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RouteTimes {
    /// Connects that were established, by the time that it took: see [`latency_bucket`].
    pub latency: [u64; LATENCY_BUCKETS],
    /// Smoothed round-trip times at the end of connections, in microseconds, summed over the closed
    /// ones. It stands behind the buckets since the verifier takes the sixteenth for possible.
    pub srtt_us: u64,
}
table_type!(RouteTimes, 128);

/// The same for a backend, in sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BackendTimes {
    /// Nanoseconds from connect to established, summed.
    pub connect_ns: u64,
    /// Smoothed round-trip times at the end of connections, in microseconds, summed over the closed
    /// ones.
    pub srtt_us: u64,
}
table_type!(BackendTimes, 16);

/// Buckets of [`RouteTimes::latency`].
pub const LATENCY_BUCKETS: usize = 15;

/// What the first bucket holds took less than 2 to this nanoseconds (131 µs); each next one holds
/// what took less than twice as long, up to 1.07 s (the first retransmission of a SYN comes after 1
/// s); the last one holds all the rest.
pub const FIRST_BUCKET_BITS: u32 = 17;

/// The bucket of a connect that was established after `ns` nanoseconds, below [`LATENCY_BUCKETS`].
///
/// There is no branch in it: the verifier wants the same arithmetic on a pointer into a map on
/// every path ("R0 tried to add from different maps, paths or scalars", without CAP_PERFMON).
#[inline(always)]
pub const fn latency_bucket(ns: u64) -> u64 {
    // Ones below the highest one, then as many of them as there are further buckets, then how many
    // these are.
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

/// Below how many nanoseconds a connect of bucket `bucket` was established; nothing for the last
/// one, which has no end.
pub const fn latency_bound_ns(bucket: usize) -> Option<u64> {
    if bucket + 1 < LATENCY_BUCKETS { Some(1 << (FIRST_BUCKET_BITS + bucket as u32)) } else { None }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_below_the_bound_of_its_bucket_and_not_below_the_one_before() {
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
