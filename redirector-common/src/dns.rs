//! Interception of DNS at the sockets of attached cgroups: what the agent and the programs share.
//! The packet datapath needs none of it, and it is off unless `dns.intercept` is `"sockets"`.
//!
//! Besides its own port the shim listens on one more port for each resolver that the configuration
//! names. A query to such a resolver is redirected to its port, and the source address of a reply
//! from that port is replaced by the resolver's. Sockets need no state, and the shim identifies the
//! resolver by the port. Only the agent writes these tables, once at its start.

use crate::{
    addr::{Ip4Be, Ip6Be, PortBe},
    table_type::table_type,
};

/// The port of intercepted queries.
pub const PORT: PortBe = PortBe::new(53);

/// The most resolvers that can be intercepted, each with a port of the shim.
pub const SLOTS: u32 = 8;

/// The mark (SO_MARK) of the agent's own sockets, whose queries are never intercepted. It shares no
/// bit with the marks of kube-proxy (0xc000), Cilium (0xffff0f00), Calico (0xffff0000) and the AWS
/// VPC CNI (0x80).
pub const MARK: u32 = 0x35;

/// The agent counts as dead when its last heartbeat is older than this, in nanoseconds.
pub const HEARTBEAT_TIMEOUT_NS: u64 = 2_000_000_000;

/// The only element of the shim's table: where intercepted queries go. While `enabled` is not 0,
/// nothing else changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Shim {
    /// Cookie of the host's network namespace; 0 for the initial one, whatever its cookie is.
    pub host_netns: u64,
    /// The shim's IPv6 address; `::`: none.
    pub ip6: Ip6Be,
    /// The shim's IPv4 address; 0.0.0.0: none.
    pub ip4: Ip4Be,
    /// The port of slot 0 in host order; the others follow.
    pub first_port: u32,
    /// 1 while queries to the listed resolvers are intercepted.
    pub enabled: u32,
    /// Zero.
    pub padding: u32,
}
table_type!(Shim, 40);

impl Shim {
    /// The slot with this port; [`SLOTS`] or more for other ports.
    #[inline(always)]
    pub const fn slot_of_port(&self, port: PortBe) -> u32 {
        (port.get() as u32).wrapping_sub(self.first_port)
    }

    /// The port of a slot.
    #[inline(always)]
    pub const fn port_of_slot(&self, slot: u32) -> PortBe {
        PortBe::new(self.first_port.wrapping_add(slot) as u16)
    }
}

// The table of resolvers has an [`Ip6Be`] for each slot: the resolver's address, an IPv4 one in its
// mapped form; `::` for an unused slot.

// The table of counters has a `u64` for each slot: connects, and datagrams of unconnected sockets,
// that were redirected to the shim. One more counter follows.

/// The counter of queries left alone since the agent's heartbeat had stopped.
pub const AGENT_STALE: u32 = SLOTS;
/// The number of counters.
pub const COUNTERS: u32 = SLOTS + 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_has_a_port_and_other_ports_have_no_slot() {
        let shim = Shim { first_port: 334, ..Shim::default() };
        for slot in 0..SLOTS {
            assert_eq!(shim.slot_of_port(shim.port_of_slot(slot)), slot);
        }
        for other in [0, 53, 333, 342, u16::MAX] {
            assert!(shim.slot_of_port(PortBe::new(other)) >= SLOTS, "{other}");
        }
    }
}
