//! What the programs tell of single connects, through a ring buffer. What the ring can't take is
//! lost and counted; no connect ever waits for it.

use crate::{
    addr::{Ip6Be, PortBe},
    table_type::table_type,
};

/// Bytes of the ring buffer: room for ten thousand events, which is a quarter of a second at forty
/// thousand a second.
pub const RING_BYTES: u32 = 1 << 20;

/// One thing that happened to one connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// When: `CLOCK_MONOTONIC` in nanoseconds.
    pub at_ns: u64,
    /// Nanoseconds from the connect to this; for [`Event::CLOSED`], from established to this.
    pub elapsed_ns: u64,
    /// The cgroup of the process that called connect: the inode of its directory.
    pub cgroup: u64,
    /// Bytes received, for [`Event::CLOSED`].
    pub rx_bytes: u64,
    /// Bytes that the other side acknowledged, for [`Event::CLOSED`].
    pub tx_bytes: u64,
    /// The backend's address, an IPv4 one in its mapped form; `::` where none was chosen.
    pub backend: Ip6Be,
    /// The command of the thread that called connect, filled up with zeroes.
    pub comm: [u8; 16],
    /// Its process id, in the first pid namespace.
    pub pid: u32,
    /// The route: the VIP's index in the pool.
    pub route: u32,
    /// The smoothed round-trip time in microseconds, for [`Event::CLOSED`].
    pub srtt_us: u32,
    /// Segments sent again, for [`Event::CLOSED`].
    pub retransmitted: u32,
    /// The port that the client asked for.
    pub vip_port: PortBe,
    /// The port that it was sent to.
    pub backend_port: PortBe,
    /// What happened: one of the kinds below.
    pub kind: u8,
    /// Why, for [`Event::DENIED`] and [`Event::PASSED`]: one of the `REASON_` constants.
    pub reason: u8,
    /// 1 when the client asked for the IPv6 VIP.
    pub vip6: u8,
    /// How many of its kind this one stands for: see [`stands_for`].
    pub told: u8,
}
table_type!(Event, 96);

impl Event {
    /// A backend accepted the connect.
    pub const ESTABLISHED: u8 = 1;
    /// An established connection has ended.
    pub const CLOSED: u8 = 2;
    /// The connect was answered with a reset.
    pub const REFUSED: u8 = 3;
    /// The connect was not answered.
    pub const TIMED_OUT: u8 = 4;
    /// The network reported the connect as undeliverable.
    pub const UNREACHABLE: u8 = 5;
    /// The application gave the connect up.
    pub const ABORTED: u8 = 6;
    /// The connect never left this host.
    pub const UNSENT: u8 = 7;
    /// The connect was refused here.
    pub const DENIED: u8 = 8;
    /// The connect could not be redirected and was left alone.
    pub const PASSED: u8 = 9;

    /// The address has no route.
    pub const REASON_NO_ROUTE: u8 = 1;
    /// The route does not list the port.
    pub const REASON_PORT: u8 = 2;
    /// The route has no backend that this socket could reach.
    pub const REASON_NO_BACKEND: u8 = 3;
    /// The kernel had no memory to remember the connect.
    pub const REASON_MEMORY: u8 = 4;
}

/// The one element of the table that counts events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EventStats {
    /// Events that the full ring did not take.
    pub lost: u64,
}
table_type!(EventStats, 8);

/// Under the highest pressure one success in 2^10 is told.
pub const MOST_SAMPLED: u8 = 10;

/// The bit of [`crate::origin::Origin::told`] that says that a success is not told: it is one of
/// many.
const BRIEF: u8 = 0x80;

/// What is told of a connect that begins while `events` ([`crate::agent::Control::events`], not 0)
/// is in force. Failures are told in any case.
///
/// There is no branch in it: each would double what the verifier has to follow.
#[inline(always)]
pub const fn drawn(events: u8, random: u32) -> u8 {
    let others = random & ((1 << (sampled(events) & 31)) - 1);
    events & !BRIEF | ((others != 0) as u8) << 7
}

/// A number that looks like chance, of how many connects a route has seen: one call of the kernel
/// less than chance itself. The first one of each route is told.
#[inline(always)]
pub const fn mixed(connects: u32) -> u32 {
    connects.wrapping_mul(0x9e37_79b1) >> 16
}

/// Whether a success is told.
#[inline(always)]
pub const fn tells_success(told: u8) -> bool {
    told != 0 && told & BRIEF == 0
}

/// How many successes one that is told stands for.
pub const fn stands_for(told: u8) -> u32 {
    1 << sampled(told & !BRIEF)
}

/// Of how many connects one has its success told, as a power of two.
#[inline(always)]
const fn sampled(events: u8) -> u8 {
    let sampled = events.saturating_sub(1);
    if sampled > MOST_SAMPLED { MOST_SAMPLED } else { sampled }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_success_in_two_to_the_n_is_told_and_every_failure() {
        for sampled in [0, 1, 5, MOST_SAMPLED] {
            let told = |random| drawn(sampled + 1, random);
            assert_eq!(
                (0..4096).filter(|&random| tells_success(told(random))).count(),
                4096 >> sampled
            );
            assert!(
                (0..4096)
                    .all(|random| told(random) != 0 && stands_for(told(random)) == 1 << sampled)
            );
        }
        for sampled in 0..=MOST_SAMPLED {
            let told = (0..1 << 16)
                .filter(|&connects| tells_success(drawn(sampled + 1, mixed(connects))))
                .count();
            assert!(
                told.abs_diff(1 << 16 >> sampled) <= 1 << 16 >> sampled >> 3,
                "{told} of 65,536 for one in 2^{sampled}"
            );
        }
        assert!(!tells_success(0));
        assert_eq!(stands_for(drawn(127, 0)), 1 << MOST_SAMPLED, "what no agent writes");
    }
}
