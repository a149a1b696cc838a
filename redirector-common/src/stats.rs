//! Counters. Each is an aligned 64-bit word that changes by atomic additions only, so that no read
//! is torn and no count is lost.
//!
//! For each route and each backend:
//! `started = established + refused + timed_out + unreachable + aborted + unsent + in flight`.

use crate::table_type::table_type;

/// Declares three structs: the counters of one map element, with a field for the programs only
/// behind `+`; the latencies of a second element; and, for user space, both together.
macro_rules! counters {
    (
        $(#[$stats_doc:meta])*
        $stats:ident {
            $($(#[$doc:meta])* $name:ident,)+
        } $(+ { $(#[$hidden_doc:meta])* $hidden:ident, })?
        $(#[$times_doc:meta])*
        $times:ident { $($(#[$time_doc:meta])* $time:ident: $time_type:ty,)+ }
        $(#[$both_doc:meta])*
        $both:ident
    ) => {
        $(#[$stats_doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct $stats {
            $($(#[$doc])* pub $name: u64,)+
            $($(#[$hidden_doc])* pub $hidden: u64,)?
        }

        $(#[$times_doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct $times {
            $($(#[$time_doc])* pub $time: $time_type,)+
        }

        $(#[$both_doc])*
        #[cfg(feature = "user")]
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize,
        )]
        #[serde(default)]
        pub struct $both {
            $($(#[$doc])* pub $name: u64,)+
            $($(#[$time_doc])* pub $time: $time_type,)+
        }

        #[cfg(feature = "user")]
        impl From<($stats, $times)> for $both {
            fn from((stats, times): ($stats, $times)) -> Self {
                Self { $($name: stats.$name,)+ $($time: times.$time,)+ }
            }
        }

        #[cfg(feature = "user")]
        impl core::ops::AddAssign for $both {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)+
                $(Sum::add(&mut self.$time, other.$time);)+
            }
        }
    };
}

/// A counter, or an array of counters, of several elements in one.
#[cfg(feature = "user")]
trait Sum {
    fn add(&mut self, other: Self);
}

#[cfg(feature = "user")]
impl Sum for u64 {
    fn add(&mut self, other: Self) {
        *self += other;
    }
}

#[cfg(feature = "user")]
impl<const N: usize> Sum for [u64; N] {
    fn add(&mut self, other: Self) {
        for (sum, value) in self.iter_mut().zip(other) {
            *sum += value;
        }
    }
}

counters! {
    /// Counters of a route's connects.
    RouteStats {
        /// Connects that were redirected, counted when the SYN leaves, or with the outcome if it
        /// never does.
        started,
        /// Connects that a backend accepted.
        established,
        /// Connects that a backend answered with a reset.
        refused,
        /// Connects that no backend answered.
        timed_out,
        /// Connects that the network reported as undeliverable after a retransmission.
        unreachable,
        /// Connects that the application gave up.
        aborted,
        /// Connects that never left this host: no route, no source address.
        unsent,
        /// Established connections that have ended since.
        closed,
        /// Connects refused by the programs: no route, a port that the route does not list, or no
        /// backend.
        denied,
        /// Connects that could not be redirected and were left alone (`on_no_backend = "pass"`).
        passed,
        /// Connects that were sent to an ejected backend, since all were ejected.
        all_ejected,
        /// Nanoseconds from the SYN to established, summed over established connects.
        connect_ns,
        /// Bytes received on connections that have ended.
        rx_bytes,
        /// Bytes that the other side acknowledged on connections that have ended.
        tx_bytes,
        /// Segments retransmitted on connections that have ended.
        retransmitted,
        /// Connects that could not use the route's source address, since the host or the pod lacks
        /// it. The kernel chose their source address.
        source_ip_failed,
        /// Established connections that the backend reset before a byte arrived; `closed` counts
        /// them, too.
        reset,
    }

    /// The latencies of a route's connects. In a table of its own since ABI 3, so that programs of
    /// ABI 2 could keep sharing the other counters.
    RouteTimes {
        /// Established connects by latency: see [`latency_bucket`].
        latency: [u64; LATENCY_BUCKETS],
        /// Smoothed round-trip times at the end of connections in microseconds, summed. This field
        /// follows the buckets, since the verifier considers a sixteenth bucket possible.
        srtt_us: u64,
    }

    /// Counters and latencies of a route's connects, since its VIP was leased.
    RouteCounters
}
table_type!(RouteStats, 136);
table_type!(RouteTimes, 128);

#[cfg(feature = "user")]
impl RouteCounters {
    /// Connections that are established now.
    pub fn open(&self) -> u64 {
        self.established.saturating_sub(self.closed)
    }
}

/// Buckets of [`RouteTimes::latency`].
pub const LATENCY_BUCKETS: usize = 15;

/// The first bucket ends at 2 to the power of this, in nanoseconds (131 µs). Each further one ends
/// at twice the time, up to 1.07 s (the first retransmission of a SYN comes after 1 s); the last
/// one has no end.
pub const FIRST_BUCKET_BITS: u32 = 17;

/// The bucket of a connect that was established after `ns` nanoseconds, below [`LATENCY_BUCKETS`].
///
/// It has no branch: without CAP_PERFMON the arithmetic on a pointer into a map must be the same on
/// every path ("R0 tried to add from different maps, paths or scalars").
#[inline(always)]
pub const fn latency_bucket(ns: u64) -> u64 {
    // Sets all bits below the highest set one, keeps one for each bucket after the first, and
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

counters! {
    /// Counters of a backend's connects, with the same meanings as those of the route.
    BackendStats {
        /// Connects that were sent here.
        started,
        /// Connects that it accepted.
        established,
        /// Connects that it answered with a reset.
        refused,
        /// Connects that it did not answer.
        timed_out,
        /// Connects that the network reported as undeliverable.
        unreachable,
        /// Connects that the application gave up.
        aborted,
        /// Connects that never left this host.
        unsent,
        /// Established connections that have ended since.
        closed,
        /// Established connections that it reset before a byte arrived; `closed` counts them, too.
        reset,
    } + {
        /// Not a counter: when a connect was established last, in nanoseconds of `CLOCK_MONOTONIC`.
        /// A port before ABI 4, which is long ago.
        succeeded_ns,
    }

    /// The latencies of a backend's connects, summed.
    BackendTimes {
        /// Nanoseconds from the SYN to established, summed over established connects.
        connect_ns: u64,
        /// Smoothed round-trip times at the end of connections in microseconds, summed.
        srtt_us: u64,
    }

    /// Counters and latencies of a backend's connects.
    BackendCounters
}
table_type!(BackendStats, 80);
table_type!(BackendTimes, 16);

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
