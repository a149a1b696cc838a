//! The names of programs, maps and load-time constants, and the hooks that programs are attached
//! to. Names have at most 15 bytes: the kernel truncates longer ones.

/// Rewrites IPv4 connects.
pub const CONNECT4: &str = "rd_connect4";
/// Rewrites IPv6 connects, those to IPv4-mapped addresses included.
pub const CONNECT6: &str = "rd_connect6";
/// Redirects IPv4 datagrams for resolvers to the shim.
pub const SENDMSG4: &str = "rd_sendmsg4";
/// Redirects IPv6 datagrams for resolvers to the shim.
pub const SENDMSG6: &str = "rd_sendmsg6";
/// Returns the resolver as the source of the shim's datagrams to IPv4 sockets.
pub const RECVMSG4: &str = "rd_recvmsg4";
/// Returns the resolver as the source of the shim's datagrams to IPv6 sockets.
pub const RECVMSG6: &str = "rd_recvmsg6";
/// Returns the peer that an IPv4 socket connected to.
pub const PEERNAME4: &str = "rd_peername4";
/// Returns the peer that an IPv6 socket connected to.
pub const PEERNAME6: &str = "rd_peername6";
/// Follows each redirected connection.
pub const SOCKOPS: &str = "rd_sockops";
/// Records sockets that are closed before they are connected.
pub const RELEASE: &str = "rd_release";

/// Answers names and redirects TCP at the ingress of a guest's interface.
pub const INGRESS: &str = "rd_ingress";
/// Undoes the redirection at the egress of a guest's interface.
pub const EGRESS: &str = "rd_egress";
/// Answers names of attached cgroups at the egress of the host's own interfaces.
pub const HOST_EGRESS: &str = "rd_host_egress";

/// The prefix of every program's name: pins of other names are not ours.
pub const PROGRAM_PREFIX: &str = "rd_";

/// The prefix of the same programs without direct access to packets, for kernels that refuse it to
/// programs without CAP_PERFMON. The loader exchanges the names.
pub const COPYING_PREFIX: &str = "rc_";

/// A hook of a cgroup, with its number in `enum bpf_attach_type` (uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Hook {
    /// State changes and other events of TCP sockets.
    SockOps = 3,
    /// connect of an IPv4 socket.
    Connect4 = 10,
    /// connect of an IPv6 socket.
    Connect6 = 11,
    /// sendmsg of an unconnected IPv4 UDP socket.
    Sendmsg4 = 14,
    /// sendmsg of an unconnected IPv6 UDP socket.
    Sendmsg6 = 15,
    /// recvmsg of an unconnected IPv4 UDP socket.
    Recvmsg4 = 19,
    /// recvmsg of an unconnected IPv6 UDP socket.
    Recvmsg6 = 20,
    /// getpeername of an IPv4 socket.
    Getpeername4 = 29,
    /// getpeername of an IPv6 socket.
    Getpeername6 = 30,
    /// The close of an IPv4 or IPv6 socket.
    SockRelease = 34,
}

impl Hook {
    /// Its number in `enum bpf_attach_type`.
    pub const fn attach_type(self) -> u32 {
        self as u32
    }

    /// Its name, as in an object's sections and in bpftool.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SockOps => "sock_ops",
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
            Self::Recvmsg4 => "recvmsg4",
            Self::Recvmsg6 => "recvmsg6",
            Self::Getpeername4 => "getpeername4",
            Self::Getpeername6 => "getpeername6",
            Self::SockRelease => "sock_release",
        }
    }
}

/// The role of a program, which determines its place in an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Rewrites the destination of a socket or a datagram. Detached first, so that nothing is
    /// rewritten that can't be restored.
    Rewrites,
    /// Acts only on sockets with an origin in [`ORIGINS`]. An upgrade that can't share that table
    /// leaves the old program in place next to the new one, for the sockets that it recorded.
    FollowsOrigins,
    /// Restores the address of a resolver.
    Restores,
}

/// A program and the hook that it is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name, here and in the kernel.
    pub name: &'static str,
    /// Its hook.
    pub hook: Hook,
    /// Its role.
    pub role: Role,
}

/// Every program, in the order in which an upgrade swaps them: first those that restore what others
/// rewrite, last those that rewrite.
pub const PROGRAMS: &[Program] = &[
    program(PEERNAME4, Hook::Getpeername4, Role::FollowsOrigins),
    program(PEERNAME6, Hook::Getpeername6, Role::FollowsOrigins),
    program(RECVMSG4, Hook::Recvmsg4, Role::Restores),
    program(RECVMSG6, Hook::Recvmsg6, Role::Restores),
    program(SOCKOPS, Hook::SockOps, Role::FollowsOrigins),
    program(RELEASE, Hook::SockRelease, Role::FollowsOrigins),
    program(CONNECT4, Hook::Connect4, Role::Rewrites),
    program(CONNECT6, Hook::Connect6, Role::Rewrites),
    program(SENDMSG4, Hook::Sendmsg4, Role::Rewrites),
    program(SENDMSG6, Hook::Sendmsg6, Role::Rewrites),
];

const fn program(name: &'static str, hook: Hook, role: Role) -> Program {
    Program { name, hook, role }
}

/// The names of all programs, in the order of [`PROGRAMS`].
pub fn program_names() -> impl ExactSizeIterator<Item = &'static str> + Clone {
    PROGRAMS.iter().map(|program| program.name)
}

/// The names of the programs in a role, in the order of [`PROGRAMS`].
pub fn programs_that(role: Role) -> impl Iterator<Item = &'static str> + Clone {
    PROGRAMS.iter().filter(move |program| program.role == role).map(|program| program.name)
}

/// A direction of the traffic-control hook of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Packets that the interface receives.
    Ingress,
    /// Packets that leave through the interface.
    Egress,
}

impl Direction {
    /// Its number in `enum bpf_attach_type` (uapi/linux/bpf.h), for a TCX link.
    pub const fn attach_type(self) -> u32 {
        match self {
            Self::Ingress => 46,
            Self::Egress => 47,
        }
    }
}

/// A program of the packet datapath and its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketProgram {
    /// Its name, here and in the kernel.
    pub name: &'static str,
    /// Its direction.
    pub direction: Direction,
}

/// Every program of the packet datapath, in the order in which an upgrade swaps them: first the one
/// that restores what another one rewrites.
pub const PACKET_PROGRAMS: &[PacketProgram] = &[
    PacketProgram { name: EGRESS, direction: Direction::Egress },
    PacketProgram { name: INGRESS, direction: Direction::Ingress },
    PacketProgram { name: HOST_EGRESS, direction: Direction::Egress },
];

/// [`crate::route::RouteEntry`] by index in the pool.
pub const ROUTES: &str = "RD_ROUTES";
/// [`crate::route::Slot`]: the blocks that route entries point to.
pub const SLOTS: &str = "RD_SLOTS";
/// [`crate::backend::Health`] by backend ID and port: see [`crate::backend::Health::index`].
pub const HEALTH: &str = "RD_HEALTH";
/// [`crate::origin::Origin`] by socket.
pub const ORIGINS: &str = "RD_ORIGINS";
/// [`crate::stats::RouteStats`] by index in the pool.
pub const ROUTE_STATS: &str = "RD_ROUTE_STATS";
/// [`crate::stats::BackendStats`] by backend ID.
pub const BACKEND_STATS: &str = "RD_BKND_STATS";
/// [`crate::agent::AgentState`], a single element.
pub const AGENT: &str = "RD_AGENT";

/// [`crate::addr::Ip6Be`] by backend ID: the addresses that do not fit into a slot.
pub const BACKENDS6: &str = "RD_BACKENDS6";
/// [`crate::agent::Control`], a single element.
pub const CONTROL: &str = "RD_CONTROL";

/// [`crate::stats::RouteTimes`] by index in the pool.
pub const ROUTE_TIMES: &str = "RD_ROUTE_TIMES";
/// [`crate::stats::BackendTimes`] by backend ID.
pub const BACKEND_TIMES: &str = "RD_BKND_TIMES";
/// The ring buffer of [`crate::event::Event`].
pub const EVENTS: &str = "RD_EVENTS";
/// [`crate::event::EventStats`], a single element.
pub const EVENT_STATS: &str = "RD_EVENT_STATS";
/// [`crate::event_budget::EventBudget`] by the hash of a client.
pub const EVENT_BUDGETS: &str = "RD_EVENT_ROOM";
/// [`crate::dns::Shim`], a single element.
pub const SHIM: &str = "RD_SHIM";
/// The address of the intercepted resolver in each slot ([`crate::addr::Ip6Be`]).
pub const RESOLVERS: &str = "RD_RESOLVERS";
/// Counters of intercepted DNS: one for each slot, then [`crate::dns::AGENT_STALE`].
pub const DNS_STATS: &str = "RD_DNS_STATS";

/// [`crate::packet::name::ShortEntry`] by the hash of the name.
pub const NAMES: &str = "RD_NAMES";
/// [`crate::packet::name::NameEntry`] by the hash of the name: names that are too long for
/// [`NAMES`].
pub const LONG_NAMES: &str = "RD_LONG_NAMES";
/// The words of [`crate::packet::name_filter`].
pub const NAME_FILTER: &str = "RD_NAME_FILTER";
/// [`crate::packet::name::WildcardEntry`] by the reversed suffix: a trie.
pub const WILDCARDS: &str = "RD_WILDCARDS";
/// [`crate::packet::name::ReverseEntry`] by index in the pool.
pub const REVERSE_NAMES: &str = "RD_REVERSE";
/// [`crate::packet::name::NameSettings`], a single element.
pub const NAME_SETTINGS: &str = "RD_NAME_CONF";
/// The number of queries answered by packet, by index in the pool.
pub const ANSWERS: &str = "RD_ANSWERS";
/// The attached cgroups, by ID: names are answered for their sockets on the host's own network.
pub const CGROUPS: &str = "RD_CGROUPS";
/// [`crate::packet::interface::Interface`] by interface index.
pub const INTERFACES: &str = "RD_INTERFACES";
/// [`crate::packet::interface::InterfaceFlows`] by interface index.
pub const INTERFACE_FLOWS: &str = "RD_IF_FLOWS";
/// [`crate::packet::flow::Flow`] by [`crate::packet::flow::FlowKey`]: established flows.
pub const FLOWS: &str = "RD_FLOWS";
/// The number of established flows that ended unseen and were removed by the agent, by index in the
/// pool.
pub const EXPIRED_FLOWS: &str = "RD_EXPIRED";
/// [`crate::packet::flow::BriefFlow`] by the same keys: half-open and ended flows. The oldest entry
/// makes room for a new one.
pub const BRIEF_FLOWS: &str = "RD_BRIEF_FLOWS";
/// A bit for each hash of an address that may be a backend's, in words of 64.
pub const BACKEND_FILTER: &str = "RD_BKND_FILTER";
/// The program that continues another one: [`HOST_EGRESS`], a single element.
pub const TAIL_CALLS: &str = "RD_TAIL_CALLS";
/// [`crate::packet::stats::PacketStats`], a single element.
pub const PACKET_STATS: &str = "RD_PACKET_STATS";

/// The memory that a packet program works in, one element for each processor. It is not pinned.
pub const SCRATCH: &str = "RD_SCRATCH";

/// The prefix of every table's name: pins of other names are not ours.
pub const MAP_PREFIX: &str = "RD_";

/// Every pinned table.
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
    EVENT_BUDGETS,
    SHIM,
    RESOLVERS,
    DNS_STATS,
    NAMES,
    LONG_NAMES,
    NAME_FILTER,
    WILDCARDS,
    REVERSE_NAMES,
    NAME_SETTINGS,
    ANSWERS,
    CGROUPS,
    INTERFACES,
    INTERFACE_FLOWS,
    FLOWS,
    EXPIRED_FLOWS,
    BRIEF_FLOWS,
    BACKEND_FILTER,
    TAIL_CALLS,
    PACKET_STATS,
];

/// The ring buffer of log records that only the debug build of the programs has, by the name that
/// aya-log gives it. It is not pinned.
pub const LOG_RECORDS: &str = "AYA_LOGS";

/// Load-time constant: the pool's first address, in network order.
pub const POOL4_BASE: &str = "POOL4_BASE";
/// Load-time constant: the pool's netmask, in network order.
pub const POOL4_MASK: &str = "POOL4_MASK";
/// Load-time constants: the four words of the IPv6 pool's first address, in network order. The last
/// word's netmask is the IPv4 pool's.
pub const POOL6_BASE: [&str; 4] = ["POOL6_BASE0", "POOL6_BASE1", "POOL6_BASE2", "POOL6_BASE3"];
/// Load-time constant: 1 if there is an IPv6 pool.
pub const HAS_POOL6: &str = "HAS_POOL6";

#[cfg(test)]
mod tests {
    use core::ops::RangeInclusive;

    use core::mem::size_of;

    use super::*;
    use crate::{
        abi, agent, backend, dns, event, event_budget, origin,
        packet::{flow, interface, name},
        route, stats,
    };

    #[test]
    fn every_name_has_at_most_15_bytes_and_our_prefix() {
        let packet = || PACKET_PROGRAMS.iter().map(|program| program.name);
        let programs = || program_names().chain(packet());
        for name in programs().chain(MAPS.iter().copied()).chain([SCRATCH]) {
            assert!(name.len() <= 15, "{name}");
        }
        assert!(
            programs().all(|name| name.starts_with(PROGRAM_PREFIX))
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
            size_of::<event_budget::EventBudget>(),
            size_of::<dns::Shim>(),
            size_of::<name::ShortEntry>(),
            size_of::<name::NameEntry>(),
            size_of::<name::WildcardEntry>(),
            size_of::<name::ReverseEntry>(),
            size_of::<name::NameSettings>(),
            size_of::<interface::Interface>(),
            size_of::<interface::InterfaceFlows>(),
            size_of::<flow::FlowKey>(),
            size_of::<flow::Flow>(),
            size_of::<flow::BriefFlow>(),
        ];
        assert_eq!(
            (abi::ABI, layout),
            (
                5,
                [
                    8, 8, 8, 88, 136, 80, 40, 8, 128, 16, 96, 8, 16, 40, 64, 272, 16, 264, 32, 16,
                    40, 48, 64, 112
                ]
            ),
            "a changed layout needs a new ABI version and an entry in abi::CHANGED"
        );
    }

    #[test]
    fn every_changed_table_and_its_version_exist() {
        for (table, version) in abi::CHANGED {
            assert!(MAPS.contains(table), "{table}");
            assert!(
                RangeInclusive::new(abi::FIRST + 1, abi::ABI).contains(version),
                "{table} in {version}"
            );
        }
    }
}
