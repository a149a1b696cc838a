//! Whether a query is intercepted, and through which slot.

use super::{select_bit, unroll::unrolled};
use crate::{
    addr::Ip6Be,
    dns::{SLOTS, STALE_NS},
};

/// From where a query to a resolver may be intercepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// From nowhere.
    Never,
    /// From the host's own network namespace: another one's loopback is not ours.
    Host,
    /// From everywhere.
    Anywhere,
}

/// From where queries to `asked` may be taken to `shim`, which is of the same family (`::` or
/// `::ffff:0.0.0.0` when there is none).
#[inline(always)]
pub const fn reach(asked: Ip6Be, shim: Ip6Be) -> Reach {
    if is_nobody(asked) || is_nobody(shim) || is_link_local(asked) || asked.is_same(shim) {
        Reach::Never
    } else if is_loopback(asked) || is_loopback(shim) {
        Reach::Host
    } else {
        Reach::Anywhere
    }
}

#[inline(always)]
const fn is_nobody(ip: Ip6Be) -> bool {
    match ip.as_mapped() {
        Some(ip) => ip.0 == 0,
        None => ip.is_unspecified(),
    }
}

/// 127.0.0.0/8 or ::1.
#[inline(always)]
const fn is_loopback(ip: Ip6Be) -> bool {
    match ip.as_mapped() {
        Some(ip) => ip.number() >> 24 == 127,
        None => ip.is_same(Ip6Be([0, 0, 0, 1_u32.to_be()])),
    }
}

/// fe80::/10: it means another machine on each link, and the links of a pod are not the host's.
#[inline(always)]
const fn is_link_local(ip: Ip6Be) -> bool {
    u32::from_be(ip.0[0]) >> 22 == 0xfe80 >> 6
}

/// Whether an agent whose last sign of life was at `heartbeat_ns` (0: never) lives at `now_ns`. It
/// may have been written after `now_ns` was read.
#[inline(always)]
pub const fn is_alive(heartbeat_ns: u64, now_ns: u64) -> bool {
    heartbeat_ns != 0 && now_ns.saturating_sub(heartbeat_ns) < STALE_NS
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Free,
    /// The resolver that was asked about, which the configuration does not name.
    This,
    /// The same, and the configuration names it ([`crate::dns::Resolver::listed`]).
    Listed,
    /// Another one.
    Other,
}

/// The table of resolvers.
pub trait Slots {
    /// What `slot` holds.
    fn held(&self, slot: u32, asked: Ip6Be) -> Held;
    /// Puts `asked` into a free slot. False when somebody else was faster.
    fn claim(&self, slot: u32, asked: Ip6Be) -> bool;
}

/// Whether [`slot_of`] gives a free slot to a resolver that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Claims {
    /// No: only listed resolvers are found.
    Never = 0,
    /// Yes.
    Free = u32::MAX,
}

/// The slot of the resolver `asked`; [`SLOTS`] when it has none and gets none. `claims` is a
/// [`Claims`].
///
/// Who loses a race for a free slot to another resolver has none: ask again.
#[inline(always)]
pub fn slot_of(table: &impl Slots, asked: Ip6Be, claims: u32) -> u32 {
    let home = home(asked);
    // A bit for each free slot, by its distance from home; none when nothing is to be claimed. No
    // branch depends on it within the rounds.
    let mut free = 0_u32;
    unrolled!(offset in 0..32 {
        let slot = home.wrapping_add(offset) % SLOTS;
        match table.held(slot, asked) {
            Held::Free => free |= 1 << offset & claims,
            Held::Other => {}
            Held::This if claims == Claims::Never as u32 => return SLOTS,
            Held::This | Held::Listed => return slot,
        }
    });
    if free == 0 {
        return SLOTS;
    }
    let slot = home.wrapping_add(select_bit::select(free.into(), 0)) % SLOTS;
    if table.claim(slot, asked) || table.held(slot, asked) == Held::This { slot } else { SLOTS }
}

/// Where the search for a resolver's slot begins.
#[inline(always)]
const fn home(asked: Ip6Be) -> u32 {
    let [a, b, c, d] = asked.0;
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

    const CLAIM: u32 = Claims::Free as u32;

    #[derive(Default)]
    struct TestSlots {
        slots: RefCell<BTreeMap<u32, (Ip6Be, bool)>>,
        /// Who is always faster.
        rival: Option<Ip6Be>,
    }

    impl Slots for TestSlots {
        fn held(&self, slot: u32, asked: Ip6Be) -> Held {
            match self.slots.borrow().get(&slot) {
                None => Held::Free,
                Some(&(address, true)) if address == asked => Held::Listed,
                Some(&(address, false)) if address == asked => Held::This,
                Some(_) => Held::Other,
            }
        }

        fn claim(&self, slot: u32, asked: Ip6Be) -> bool {
            let winner = self.rival.unwrap_or(asked);
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
    fn loopback_is_the_hosts_only_and_the_shim_itself_is_left_alone() {
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
    fn an_agent_lives_for_two_seconds_after_its_last_sign() {
        assert!(!is_alive(0, 1), "it never gave one");
        assert!(is_alive(5, 5) && is_alive(6, 5) && is_alive(5, 5 + STALE_NS - 1));
        assert!(!is_alive(5, 5 + STALE_NS));
    }

    #[test]
    fn each_resolver_has_a_slot_of_its_own_until_all_are_taken() {
        let table = TestSlots::default();
        let resolvers: Vec<Ip6Be> = (0..SLOTS as u8).map(|n| v4(10, 0, n, 53)).collect();
        let slots: Vec<u32> = resolvers.iter().map(|&at| slot_of(&table, at, CLAIM)).collect();
        let mut distinct = slots.clone();
        distinct.sort_unstable();
        assert_eq!(distinct, (0..SLOTS).collect::<Vec<_>>());
        let again: Vec<u32> = resolvers.iter().map(|&at| slot_of(&table, at, CLAIM)).collect();
        assert_eq!(again, slots);
        assert_eq!(slot_of(&table, v4(192, 0, 2, 1), CLAIM), SLOTS);
    }

    #[test]
    fn who_loses_the_race_for_a_slot_takes_the_next_or_the_same_if_it_was_for_the_same() {
        let table = TestSlots { rival: Some(v4(10, 0, 0, 1)), ..TestSlots::default() };
        assert_eq!(slot_of(&table, v4(10, 0, 0, 2), CLAIM), SLOTS, "the rival takes them all");
        let table = TestSlots { rival: Some(v4(10, 0, 0, 1)), ..TestSlots::default() };
        let slot = slot_of(&table, v4(10, 0, 0, 1), CLAIM);
        assert_eq!(table.slots.borrow().len(), 1);
        assert!(slot < SLOTS && slot_of(&table, v4(10, 0, 0, 1), CLAIM) == slot);
    }

    #[test]
    fn a_list_finds_what_it_names_and_claims_nothing() {
        let table = TestSlots::default();
        let (named, other) = (v4(10, 96, 0, 10), v4(10, 96, 0, 11));
        for resolver in [named, other] {
            assert!(slot_of(&table, resolver, CLAIM) < SLOTS);
        }
        table
            .slots
            .borrow_mut()
            .values_mut()
            .for_each(|(address, listed)| *listed = *address == named);
        assert!(slot_of(&table, named, Claims::Never as u32) < SLOTS);
        assert_eq!(slot_of(&table, other, Claims::Never as u32), SLOTS);
        assert_eq!(slot_of(&table, v4(10, 96, 0, 12), Claims::Never as u32), SLOTS);
        assert_eq!(table.slots.borrow().len(), 2);
    }

    #[test]
    fn usual_resolvers_do_not_meet_in_one_slot() {
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
