//! Bounds the events of one client, so that a flood of failures leaves room for those of others.
//!
//! A client is a cgroup, a guest's interface, or a route if the caller is unknown. Each window, its
//! first [`FULL`] failures are reported, then one in [`SAMPLED`]. Successes are sampled for all
//! clients together ([`crate::sampling`]); until the ratio has adapted to a burst, they may fill
//! half of the ring only.

use crate::{event::RING_BYTES, sampling::Sampling, table_type::table_type};

/// Failures of a client that are all reported within a window.
pub const FULL: u32 = 256;
/// Beyond that, one in so many is reported: a power of two.
pub const SAMPLED: u32 = 1 << SAMPLED_LOG2;
/// Elements of the table. Clients share an element by chance.
pub const ELEMENTS: u32 = 4096;
/// Bytes of the ring that successes leave to failures.
pub const FAILURES_BYTES: u64 = RING_BYTES as u64 / 2;

const SAMPLED_LOG2: u8 = 8;
/// A window is 2^27 ns, 134 ms: the agent empties the ring ten times a second.
const WINDOW_SHIFT: u32 = 27;

/// The failures of the clients that share an element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EventBudget {
    /// The window in the upper half, its failures in the lower one. Concurrent programs may lose a
    /// count, which makes the budget a little larger.
    pub state: u64,
    /// Failures that were not reported.
    pub suppressed: u64,
}
table_type!(EventBudget, 16);

/// The client of a connect on `route` whose cgroup is not known.
#[inline(always)]
pub const fn unknown_caller(route: u32) -> u64 {
    1 << 62 | route as u64
}

/// The client of a guest at `interface`.
#[inline(always)]
pub const fn guest(interface: u32) -> u64 {
    1 << 63 | interface as u64
}

/// The element of a client.
#[inline(always)]
pub const fn element_of(client: u64) -> u32 {
    (client.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as u32
}

/// The state after one more failure at `now_ns`.
#[inline(always)]
pub const fn add_failure(state: u64, now_ns: u64) -> u64 {
    let window = now_ns >> WINDOW_SHIFT << 32;
    let same = ((state ^ window) >> 32 == 0) as u64;
    window | (((state & 0xffff_ffff) * same + 1) & 0xffff_ffff)
}

/// How the failure is reported that led to `state`; [`Sampling::OFF`]: not at all.
#[inline(always)]
pub const fn report(state: u64) -> Sampling {
    let count = state as u32;
    if count <= FULL {
        Sampling::ALL
    } else if count.wrapping_sub(FULL) & (SAMPLED - 1) == 0 {
        Sampling::with_ratio_log2(SAMPLED_LOG2)
    } else {
        Sampling::OFF
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_sampled_and_each_window_begins_with_all() {
        let mut state = 0;
        let mut represented = 0;
        let mut reported = 0;
        for _ in 0..24_832 {
            state = add_failure(state, 5 << WINDOW_SHIFT | 7);
            let sampling = report(state);
            if !sampling.is_off() {
                reported += 1;
                represented += sampling.ratio();
            }
        }
        assert_eq!((reported, represented), (FULL + 96, 24_832));
        state = add_failure(state, 6 << WINDOW_SHIFT);
        assert_eq!((state as u32, report(state)), (1, Sampling::ALL));
        assert_eq!(add_failure(state, u64::MAX) as u32, 1);
    }

    #[test]
    fn clients_are_spread_over_the_elements() {
        let mut found = [0_u32; ELEMENTS as usize];
        // The inodes of cgroups and the indices of interfaces are consecutive numbers.
        (0..4096).for_each(|client| found[element_of(client) as usize] += 1);
        assert!(found.iter().all(|&clients| clients <= 3), "{:?}", found.iter().max());
    }
}
