//! DNS interception: what agent and programs agree on.
//!
//! Beside its own port the shim listens on [`SLOTS`] further ports, one for each resolver that
//! executors ask. A query is sent to the port of the resolver that it was meant for, and what comes
//! from that port is told to come from that resolver. Nothing has to be remembered for a socket,
//! and the shim knows by the port who was asked.

use crate::{
    addr::{Ip4Be, Ip6Be, PortBe},
    table_type::table_type,
};

/// The port that is intercepted.
pub const PORT: PortBe = PortBe::new(53);

/// Resolvers that can be told apart at a time, each by a port of the shim's.
pub const SLOTS: u32 = 32;

/// The mark (SO_MARK) of the agent's own sockets, whose queries are never intercepted. No bit of it
/// is one of kube-proxy's (0xc000), Cilium's (0xffff0f00), Calico's (0xffff0000) or the AWS VPC
/// CNI's (0x80).
pub const MARK: u32 = 0x35;

/// The agent counts as dead when its last sign of life is older than this, in nanoseconds.
pub const STALE_NS: u64 = 2_000_000_000;

/// The one element of the shim's table: where intercepted DNS goes. While `mode` is not
/// [`Shim::OFF`] nothing but `mode` changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Shim {
    /// Cookie of the host's network namespace; 0 for the initial one, whatever its cookie is.
    pub host_netns: u64,
    /// Its IPv6 address; `::` for none.
    pub ip6: Ip6Be,
    /// Its IPv4 address; 0.0.0.0 for none.
    pub ip4: Ip4Be,
    /// The port of slot 0, as people write it; the others follow.
    pub first_port: u32,
    /// What is intercepted: [`Shim::OFF`], [`Shim::LISTED`] or [`Shim::ALL`].
    pub mode: u32,
    /// Zero.
    pub padding: u32,
}
table_type!(Shim, 40);

impl Shim {
    /// Nothing.
    pub const OFF: u32 = 0;
    /// Queries to resolvers that have [`Resolver::listed`].
    pub const LISTED: u32 = 1;
    /// Queries to every resolver; one that has no slot yet gets a free one.
    pub const ALL: u32 = 2;

    /// The slot whose port this is; no slot ([`SLOTS`] or more) for other ports.
    #[inline(always)]
    pub const fn slot_at(&self, port: PortBe) -> u32 {
        (port.get() as u32).wrapping_sub(self.first_port)
    }

    /// The port of a slot.
    #[inline(always)]
    pub const fn port_of(&self, slot: u32) -> PortBe {
        PortBe::new(self.first_port.wrapping_add(slot) as u16)
    }
}

/// A resolver that executors ask, by slot. An element is made once and whole, by whoever meets the
/// resolver first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Resolver {
    /// Its address; an IPv4 one in its mapped form.
    pub address: Ip6Be,
    /// 1 when the configuration names it.
    pub listed: u32,
    /// Zero.
    pub padding: u32,
}
table_type!(Resolver, 24);

// The table of counters has a `u64` for each slot: connects, and datagrams of sockets that are not
// connected, that were taken to the shim.

/// The counter, after those of the slots, of what was left alone since every slot had another
/// resolver.
pub const CROWDED: u32 = SLOTS;
/// The counter of what was left alone since the agent gave no sign of life.
pub const STALE: u32 = SLOTS + 1;
/// How many counters there are.
pub const COUNTERS: u32 = SLOTS + 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_has_a_port_and_no_other_port_has_a_slot() {
        let shim = Shim { first_port: 5310, ..Shim::default() };
        for slot in 0..SLOTS {
            assert_eq!(shim.slot_at(shim.port_of(slot)), slot);
        }
        for other in [0, 53, 5309, 5342, u16::MAX] {
            assert!(shim.slot_at(PortBe::new(other)) >= SLOTS, "{other}");
        }
    }
}
