//! The names of programs, maps and load-time constants: at most 15 bytes each, or the kernel cuts
//! them.

/// Rewrites IPv4 connects.
pub const CONNECT4: &str = "rd_connect4";
/// Rewrites IPv6 connects, those to IPv4-mapped addresses included.
pub const CONNECT6: &str = "rd_connect6";
/// Takes IPv4 datagrams for resolvers to the shim.
pub const SENDMSG4: &str = "rd_sendmsg4";
/// The same for IPv6.
pub const SENDMSG6: &str = "rd_sendmsg6";
/// Tells IPv4 sockets the resolver that a datagram answers for.
pub const RECVMSG4: &str = "rd_recvmsg4";
/// The same for IPv6 sockets.
pub const RECVMSG6: &str = "rd_recvmsg6";
/// Tells IPv4 sockets the peer that they asked for.
pub const PEERNAME4: &str = "rd_peername4";
/// Tells IPv6 sockets the peer that they asked for.
pub const PEERNAME6: &str = "rd_peername6";
/// Follows each redirected connection.
pub const SOCKOPS: &str = "rd_sockops";
/// Sees sockets go that never got through.
pub const RELEASE: &str = "rd_release";

/// What the name of every program begins with: a pin of another name is not ours.
pub const PROGRAM_PREFIX: &str = "rd_";

/// Every program, in the order in which an upgrade swaps them: those that tell back what others
/// rewrite first, those that rewrite last.
pub const PROGRAMS: &[&str] = &[
    PEERNAME4, PEERNAME6, RECVMSG4, RECVMSG6, SOCKOPS, RELEASE, CONNECT4, CONNECT6, SENDMSG4,
    SENDMSG6,
];

/// The programs that rewrite where a socket goes: the first to be detached, so that nothing is
/// rewritten that can't be told back.
pub const REWRITERS: &[&str] = &[CONNECT4, CONNECT6, SENDMSG4, SENDMSG6];

/// The programs that act on sockets which another program has marked in [`ORIGINS`], and do nothing
/// on others. An upgrade that can't go on with that table leaves the old ones in place beside the
/// new ones, for the sockets that they know.
pub const FOLLOWERS: &[&str] = &[PEERNAME4, PEERNAME6, SOCKOPS, RELEASE];

/// [`crate::route::RouteEntry`] by index in the pool.
pub const ROUTES: &str = "RD_ROUTES";
/// [`crate::route::Slot`]: the blocks that route entries point to.
pub const SLOTS: &str = "RD_SLOTS";
/// [`crate::backend::Health`] by backend number.
pub const HEALTH: &str = "RD_HEALTH";
/// [`crate::origin::Origin`] by socket.
pub const ORIGINS: &str = "RD_ORIGINS";
/// [`crate::stats::RouteStats`] by index in the pool.
pub const ROUTE_STATS: &str = "RD_ROUTE_STATS";
/// [`crate::stats::BackendStats`] by backend number.
pub const BACKEND_STATS: &str = "RD_BKND_STATS";
/// [`crate::agent::AgentState`], one element.
pub const AGENT: &str = "RD_AGENT";

/// [`crate::addr::Ip6Be`] by backend number: the addresses that do not fit in a slot.
pub const BACKENDS6: &str = "RD_BACKENDS6";
/// [`crate::agent::Control`], one element.
pub const CONTROL: &str = "RD_CONTROL";

/// [`crate::stats::RouteTimes`] by index in the pool.
pub const ROUTE_TIMES: &str = "RD_ROUTE_TIMES";
/// [`crate::stats::BackendTimes`] by backend number.
pub const BACKEND_TIMES: &str = "RD_BKND_TIMES";
/// The ring buffer of [`crate::event::Event`].
pub const EVENTS: &str = "RD_EVENTS";
/// [`crate::event::EventStats`], one element.
pub const EVENT_STATS: &str = "RD_EVENT_STATS";
/// [`crate::dns::Shim`], one element.
pub const SHIM: &str = "RD_SHIM";
/// [`crate::dns::Resolver`] by slot: a hash, of which an element can be made only once.
pub const RESOLVERS: &str = "RD_RESOLVERS";
/// What became of executors' DNS: a counter for each slot, then [`crate::dns::CROWDED`] and
/// [`crate::dns::STALE`].
pub const DNS_STATS: &str = "RD_DNS_STATS";

/// What the name of every table begins with: a pin of another name is not ours.
pub const MAP_PREFIX: &str = "RD_";

/// Every table. All are pinned.
pub const MAPS: &[&str] = &[
    ROUTES,
    SLOTS,
    HEALTH,
    ORIGINS,
    ROUTE_STATS,
    BACKEND_STATS,
    AGENT,
    BACKENDS6,
    CONTROL,
    ROUTE_TIMES,
    BACKEND_TIMES,
    EVENTS,
    EVENT_STATS,
    SHIM,
    RESOLVERS,
    DNS_STATS,
];

/// Load-time constant: the pool's first address, in network order.
pub const POOL4_BASE: &str = "POOL4_BASE";
/// Load-time constant: the pool's netmask, in network order.
pub const POOL4_MASK: &str = "POOL4_MASK";
/// Load-time constants: the four words of the IPv6 pool's first address, in network order. Its last
/// word has the IPv4 pool's netmask.
pub const POOL6_BASE: [&str; 4] = ["POOL6_BASE0", "POOL6_BASE1", "POOL6_BASE2", "POOL6_BASE3"];
/// Load-time constant: 1 when there is an IPv6 pool.
pub const HAS_POOL6: &str = "HAS_POOL6";

#[cfg(test)]
mod tests {
    use core::ops::RangeInclusive;

    use core::mem::size_of;

    use super::*;
    use crate::{abi, agent, backend, dns, event, origin, route, stats};

    #[test]
    fn every_name_fits_in_fifteen_bytes_and_is_recognized_as_ours() {
        for name in PROGRAMS.iter().chain(MAPS) {
            assert!(name.len() <= 15, "{name}");
        }
        assert!(
            PROGRAMS.iter().all(|name| name.starts_with(PROGRAM_PREFIX))
                && MAPS.iter().all(|name| name.starts_with(MAP_PREFIX))
        );
    }

    #[test]
    fn layout_is_pinned_to_the_version() {
        let layout = [
            size_of::<route::RouteEntry>(),
            size_of::<route::Slot>(),
            size_of::<backend::Health>(),
            size_of::<origin::Origin>(),
            size_of::<stats::RouteStats>(),
            size_of::<stats::BackendStats>(),
            size_of::<agent::AgentState>(),
            size_of::<agent::Control>(),
            size_of::<stats::RouteTimes>(),
            size_of::<stats::BackendTimes>(),
            size_of::<event::Event>(),
            size_of::<event::EventStats>(),
            size_of::<dns::Shim>(),
            size_of::<dns::Resolver>(),
        ];
        assert_eq!(
            (abi::ABI, layout),
            (3, [8, 8, 8, 88, 128, 72, 40, 8, 128, 16, 96, 8, 40, 24]),
            "a changed layout needs a new ABI version, and its place in abi::CHANGED"
        );
    }

    #[test]
    fn what_changed_is_a_table_and_did_so_in_a_version_that_there_was() {
        for (table, version) in abi::CHANGED {
            assert!(MAPS.contains(table), "{table}");
            assert!(
                RangeInclusive::new(abi::FIRST + 1, abi::ABI).contains(version),
                "{table} in {version}"
            );
        }
    }
}
