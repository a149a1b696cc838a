//! Decides whether a DNS query is intercepted, and through which slot.

use super::select_bit::nth_set_bit;
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

/// The content of a slot from the point of view of one resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Nothing.
    Free,
    /// This resolver, which the configuration does not list.
    Unlisted,
    /// This resolver, which the configuration lists ([`crate::dns::Resolver::listed`]).
    Listed,
    /// Another resolver.
    Other,
}

/// The table of resolvers.
pub trait SlotTable {
    /// The content of `slot` from the point of view of `resolver`.
    fn state(&self, slot: u32, resolver: Ip6Be) -> SlotState;
    /// Puts `resolver` into a free slot. False if the slot was claimed meanwhile.
    fn claim(&self, slot: u32, resolver: Ip6Be) -> bool;
}

/// Whether [`find_slot`] claims a free slot for a resolver without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Claim {
    /// No, and only listed resolvers are found.
    Never = 0,
    /// Yes.
    IfFree = u32::MAX,
}

/// The slot of `resolver`, which it may claim; [`SLOTS`] if it has none. `claim` is a [`Claim`].
///
/// [`SLOTS`] also if another resolver claims the same free slot first: call this again.
#[inline(always)]
pub fn find_slot(table: &impl SlotTable, resolver: Ip6Be, claim: u32) -> u32 {
    let home = home(resolver);
    // A bit for each free slot, by its distance from home; 0 if nothing may be claimed. No branch
    // in the rounds depends on it.
    let mut free = 0_u32;
    unroll!(offset in 0..32 {
        let slot = home.wrapping_add(offset) % SLOTS;
        match table.state(slot, resolver) {
            SlotState::Free => free |= 1 << offset & claim,
            SlotState::Other => {}
            SlotState::Unlisted if claim == Claim::Never as u32 => return SLOTS,
            SlotState::Unlisted | SlotState::Listed => return slot,
        }
    });
    if free == 0 {
        return SLOTS;
    }
    let slot = home.wrapping_add(nth_set_bit(free.into(), 0)) % SLOTS;
    if table.claim(slot, resolver) || table.state(slot, resolver) == SlotState::Unlisted {
        slot
    } else {
        SLOTS
    }
}

/// The slot where the search for a resolver begins.
#[inline(always)]
const fn home(resolver: Ip6Be) -> u32 {
    let [a, b, c, d] = resolver.0;
    // Fibonacci hashing: the upper bits depend on all the lower ones.
    (a ^ b.rotate_left(7) ^ c.rotate_left(13) ^ d).wrapping_mul(0x9e37_79b1)
        >> (32 - SLOTS.trailing_zeros())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{cell::RefCell, collections::BTreeMap, vec::Vec};

    use super::*;
    use crate::addr::Ip4Be;

    const CLAIM: u32 = Claim::IfFree as u32;

    #[derive(Default)]
    struct TestSlots {
        slots: RefCell<BTreeMap<u32, (Ip6Be, bool)>>,
        /// Claims every slot before the resolver under test does.
        rival: Option<Ip6Be>,
    }

    impl SlotTable for TestSlots {
        fn state(&self, slot: u32, resolver: Ip6Be) -> SlotState {
            match self.slots.borrow().get(&slot) {
                None => SlotState::Free,
                Some(&(address, true)) if address == resolver => SlotState::Listed,
                Some(&(address, false)) if address == resolver => SlotState::Unlisted,
                Some(_) => SlotState::Other,
            }
        }

        fn claim(&self, slot: u32, resolver: Ip6Be) -> bool {
            let winner = self.rival.unwrap_or(resolver);
            self.slots.borrow_mut().insert(slot, (winner, false));
            self.rival.is_none()
        }
    }

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
    fn each_resolver_has_its_own_slot_until_all_are_taken() {
        let table = TestSlots::default();
        let resolvers: Vec<Ip6Be> = (0..SLOTS as u8).map(|n| v4(10, 0, n, 53)).collect();
        let slots: Vec<u32> = resolvers.iter().map(|&at| find_slot(&table, at, CLAIM)).collect();
        let mut distinct = slots.clone();
        distinct.sort_unstable();
        assert_eq!(distinct, (0..SLOTS).collect::<Vec<_>>());
        let again: Vec<u32> = resolvers.iter().map(|&at| find_slot(&table, at, CLAIM)).collect();
        assert_eq!(again, slots);
        assert_eq!(find_slot(&table, v4(192, 0, 2, 1), CLAIM), SLOTS);
    }

    #[test]
    fn a_slot_that_a_rival_claims_for_the_same_resolver_is_used() {
        let table = TestSlots { rival: Some(v4(10, 0, 0, 1)), ..TestSlots::default() };
        assert_eq!(find_slot(&table, v4(10, 0, 0, 2), CLAIM), SLOTS, "the rival gets every slot");
        let table = TestSlots { rival: Some(v4(10, 0, 0, 1)), ..TestSlots::default() };
        let slot = find_slot(&table, v4(10, 0, 0, 1), CLAIM);
        assert_eq!(table.slots.borrow().len(), 1);
        assert!(slot < SLOTS && find_slot(&table, v4(10, 0, 0, 1), CLAIM) == slot);
    }

    #[test]
    fn only_listed_resolvers_are_found_without_a_claim() {
        let table = TestSlots::default();
        let (named, other) = (v4(10, 96, 0, 10), v4(10, 96, 0, 11));
        for resolver in [named, other] {
            assert!(find_slot(&table, resolver, CLAIM) < SLOTS);
        }
        table
            .slots
            .borrow_mut()
            .values_mut()
            .for_each(|(address, listed)| *listed = *address == named);
        assert!(find_slot(&table, named, Claim::Never as u32) < SLOTS);
        assert_eq!(find_slot(&table, other, Claim::Never as u32), SLOTS);
        assert_eq!(find_slot(&table, v4(10, 96, 0, 12), Claim::Never as u32), SLOTS);
        assert_eq!(table.slots.borrow().len(), 2);
    }

    #[test]
    fn common_resolvers_start_at_different_slots() {
        let usual = [
            v4(10, 96, 0, 10),
            v4(10, 0, 0, 2),
            v4(169, 254, 20, 10),
            v4(169, 254, 169, 254),
            v4(8, 8, 8, 8),
            v4(1, 1, 1, 1),
        ];
        let mut homes: Vec<u32> = usual.iter().map(|&at| home(at)).collect();
        homes.sort_unstable();
        homes.dedup();
        assert!(homes.len() >= usual.len() - 1, "{homes:?}");
    }
}
