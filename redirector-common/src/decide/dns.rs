//! Decides whether a DNS query is intercepted at its socket, and through which slot.

use crate::{
    addr::Ip6Be,
    dns::{HEARTBEAT_TIMEOUT_NS, SLOTS},
    unroll::unroll,
};

/// Where queries to a resolver may be intercepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nowhere.
    Never,
    /// In the host's network namespace only: the loopback of another one is not ours.
    Host,
    /// In every network namespace.
    Anywhere,
}

/// Where queries to `resolver` may be redirected to `shim`, which is of the same family (`::` or
/// `::ffff:0.0.0.0` if there is none).
#[inline(always)]
pub const fn reach(resolver: Ip6Be, shim: Ip6Be) -> Reach {
    if is_unspecified(resolver)
        || is_unspecified(shim)
        || is_link_local(resolver)
        || resolver.is_same(shim)
    {
        Reach::Never
    } else if is_loopback(resolver) || is_loopback(shim) {
        Reach::Host
    } else {
        Reach::Anywhere
    }
}

/// `::` or `::ffff:0.0.0.0`.
#[inline(always)]
const fn is_unspecified(ip: Ip6Be) -> bool {
    match ip.as_mapped() {
        Some(ip) => ip.0 == 0,
        None => ip.is_unspecified(),
    }
}

/// `::ffff:127.0.0.0/104` or `::1`.
#[inline(always)]
const fn is_loopback(ip: Ip6Be) -> bool {
    match ip.as_mapped() {
        Some(ip) => ip.to_bits() >> 24 == 127,
        None => ip.is_same(Ip6Be([0, 0, 0, 1_u32.to_be()])),
    }
}

/// `fe80::/10`: such an address is another machine on each link, and a pod's links are not the
/// host's.
#[inline(always)]
const fn is_link_local(ip: Ip6Be) -> bool {
    u32::from_be(ip.0[0]) >> 22 == 0xfe80 >> 6
}

/// Whether an agent whose last heartbeat was at `heartbeat_ns` (0: none) is alive at `now_ns`. The
/// heartbeat may be later than `now_ns`.
#[inline(always)]
pub const fn is_alive(heartbeat_ns: u64, now_ns: u64) -> bool {
    heartbeat_ns != 0 && now_ns.saturating_sub(heartbeat_ns) < HEARTBEAT_TIMEOUT_NS
}

/// The slot of `resolver`, given the resolver of each slot; [`SLOTS`] if it is not listed.
#[inline(always)]
pub fn find_slot(resolver_of: impl Fn(u32) -> Ip6Be, resolver: Ip6Be) -> u32 {
    unroll!(slot in 0..8 {
        if resolver_of(slot).is_same(resolver) {
            return slot;
        }
    });
    SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Ip4Be;

    fn v4(a: u8, b: u8, c: u8, d: u8) -> Ip6Be {
        Ip6Be::mapped(Ip4Be::from_octets([a, b, c, d]))
    }

    fn v6(first: u32, last: u32) -> Ip6Be {
        Ip6Be([first.to_be(), 0, 0, last.to_be()])
    }

    #[test]
    fn loopback_is_for_the_host_and_the_shim_is_left_alone() {
        let shim = v4(169, 254, 20, 53);
        assert_eq!(reach(v4(10, 96, 0, 10), shim), Reach::Anywhere);
        assert_eq!(reach(shim, shim), Reach::Never);
        for loopback in
            [v4(127, 0, 0, 1), v4(127, 0, 0, 11), v4(127, 0, 0, 53), v4(127, 255, 255, 255)]
        {
            assert_eq!(reach(loopback, shim), Reach::Host);
        }
        assert_eq!(reach(v4(10, 96, 0, 10), v4(127, 0, 0, 1)), Reach::Host);
        assert_eq!(reach(v4(0, 0, 0, 0), shim), Reach::Never);
        assert_eq!(reach(v4(10, 96, 0, 10), v4(0, 0, 0, 0)), Reach::Never);
        let shim = v6(0xfd00_0000, 0x53);
        assert_eq!(reach(v6(0xfd00_0000, 10), shim), Reach::Anywhere);
        assert_eq!(reach(v6(0, 1), shim), Reach::Host);
        assert_eq!(reach(v6(0, 0), shim), Reach::Never);
        assert_eq!(reach(v6(0xfd00_0000, 10), v6(0, 0)), Reach::Never);
        assert_eq!(
            (reach(v6(0xfe80_0000, 1), shim), reach(v6(0xfebf_ffff, 1), shim)),
            (Reach::Never, Reach::Never)
        );
        assert_eq!(reach(v6(0xfec0_0000, 1), shim), Reach::Anywhere);
    }

    #[test]
    fn an_agent_is_alive_for_two_seconds_after_a_heartbeat() {
        assert!(!is_alive(0, 1), "no heartbeat yet");
        assert!(is_alive(5, 5) && is_alive(6, 5) && is_alive(5, 5 + HEARTBEAT_TIMEOUT_NS - 1));
        assert!(!is_alive(5, 5 + HEARTBEAT_TIMEOUT_NS));
    }

    #[test]
    fn only_a_listed_resolver_has_a_slot() {
        let listed = [v4(10, 96, 0, 10), v6(0xfd00_0000, 10), Ip6Be::default(), v4(10, 0, 0, 2)];
        let resolver_of = |slot: u32| listed.get(slot as usize).copied().unwrap_or_default();
        for (slot, resolver) in [(0, listed[0]), (1, listed[1]), (3, listed[3])] {
            assert_eq!(find_slot(resolver_of, resolver), slot);
        }
        assert_eq!(find_slot(resolver_of, v4(10, 96, 0, 11)), SLOTS);
        assert_eq!(find_slot(|_| v4(10, 96, 0, 11), v4(10, 96, 0, 12)), SLOTS);
    }
}
