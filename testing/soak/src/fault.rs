//! What can go wrong in a soak, and whom the contract lets it harm.

use std::fmt;

use testbed::customer::Obstacle;

/// Something that goes wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The agent gets SIGKILL, and another one starts.
    AgentKilled,
    /// The agent gets SIGSTOP, and SIGCONT.
    AgentStopped,
    /// The agent is terminated and another one takes over.
    AgentUpgraded,
    /// The agent crashes three times in a row soon after its start.
    AgentCrashLoop,
    /// The agent cannot have more memory than it uses.
    AgentWithoutMemory,
    /// A load balancer gets SIGKILL, and starts again.
    BackendKilled(usize),
    /// A load balancer gets SIGSTOP: it accepts and is silent.
    BackendStopped(usize),
    /// A load balancer cannot be reached.
    BackendObstructed(usize, Obstacle),
    /// An upstream of the shim cannot be reached; the first one is also the clients' resolver.
    UpstreamObstructed(usize, Obstacle),
    /// The DNS server of the destination gets SIGSTOP.
    DnsStopped,
    /// The DNS server of the destination gets SIGKILL.
    DnsKilled,
    /// The destination's name leads to one load balancer only.
    AddressesChanged(usize),
    /// One packet in five towards the customer is lost.
    UplinkLossy,
    /// Packets towards the customer queue for tens of milliseconds.
    UplinkSlow,
    /// Routes are added, used, changed and removed.
    RoutesChanged,
    /// A guest appears, asks and connects, and its interface disappears.
    GuestReplaced,
    /// The file system of the agent's state is full.
    DiskFull,
    /// All pins are removed.
    PinsRemoved,
    /// The bpf file system is unmounted, and mounted again without the pins.
    BpffsUnmounted,
    /// The shim's address is removed from the node.
    ShimAddressRemoved,
    /// A tenant misbehaves.
    Tenant(Attack),
}

/// How a tenant misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Attack {
    /// SYNs to a virtual address, each from another port.
    SynFlood,
    /// Queries for a mapped name, each from another port.
    QueryFlood,
    /// SYNs with the address of another guest.
    SpoofedSyns,
    /// Connects that are refused, as fast as possible.
    RefusedConnects,
    /// Connects that cannot succeed, and whose failures say nothing about the backend.
    MisboundConnects,
    /// Idle half-requests to the admin listener from an unprivileged process.
    HalfRequests,
    /// Queries to two hundred addresses, to crowd out the resolvers of others.
    ResolverCrowd,
    /// Queries to a resolver that never answers.
    SilentResolver,
}

/// What two faults of one episode may not share, since each would hide the other, or undo it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// The agent.
    Agent,
    /// A load balancer.
    Backend(usize),
    /// An upstream of the shim.
    Upstream(usize),
    /// The destination's DNS server.
    Dns,
    /// The link to the customer.
    Uplink,
    /// The agent's state directory.
    State,
    /// A tenant's pod.
    Tenant,
}

/// Whom the contract lets a fault harm, for as long as it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The agent does not answer: what only the agent does may fail.
    AgentAway,
    /// Nobody has the shim's address: what is sent to it is lost.
    ShimAway,
    /// Connects to this backend may fail.
    Backend(usize),
    /// Queries to this upstream may fail.
    Upstream(usize),
    /// The agent may miss changes of the destination's addresses.
    DnsAway,
    /// Whatever crosses the link may fail.
    Uplink,
}

impl Fault {
    /// What it needs for itself.
    pub(crate) fn resources(self) -> Vec<Resource> {
        match self {
            Self::AgentKilled
            | Self::AgentStopped
            | Self::AgentUpgraded
            | Self::AgentCrashLoop
            | Self::AgentWithoutMemory => vec![Resource::Agent],
            Self::BackendKilled(at) | Self::BackendStopped(at) | Self::BackendObstructed(at, _) => {
                vec![Resource::Backend(at)]
            }
            Self::UpstreamObstructed(at, _) => vec![Resource::Upstream(at)],
            Self::DnsStopped | Self::DnsKilled | Self::AddressesChanged(_) => vec![Resource::Dns],
            Self::UplinkLossy | Self::UplinkSlow => vec![Resource::Uplink],
            // A new route or guest is served by an agent, over a link that works.
            Self::RoutesChanged => {
                let backends = [Resource::Backend(0), Resource::Backend(1)];
                [&[Resource::Agent, Resource::State, Resource::Uplink], &backends[..]].concat()
            }
            Self::GuestReplaced => {
                let backends = [Resource::Backend(0), Resource::Backend(1)];
                [&[Resource::Agent, Resource::Uplink], &backends[..]].concat()
            }
            Self::DiskFull => vec![Resource::State],
            // Only an agent restores what was removed.
            Self::PinsRemoved | Self::BpffsUnmounted | Self::ShimAddressRemoved => {
                vec![Resource::Agent]
            }
            Self::Tenant(_) => vec![Resource::Tenant],
        }
    }

    /// What the clients must put up with meanwhile: nothing, if a tenant attacks.
    pub(crate) fn condition(self) -> Option<Condition> {
        match self {
            Self::AgentKilled
            | Self::AgentStopped
            | Self::AgentUpgraded
            | Self::AgentCrashLoop
            | Self::AgentWithoutMemory => Some(Condition::AgentAway),
            Self::ShimAddressRemoved => Some(Condition::ShimAway),
            Self::BackendKilled(at) | Self::BackendStopped(at) | Self::BackendObstructed(at, _) => {
                Some(Condition::Backend(at))
            }
            Self::UpstreamObstructed(at, _) => Some(Condition::Upstream(at)),
            Self::DnsStopped | Self::DnsKilled => Some(Condition::DnsAway),
            Self::UplinkLossy | Self::UplinkSlow => Some(Condition::Uplink),
            Self::AddressesChanged(_)
            | Self::RoutesChanged
            | Self::GuestReplaced
            | Self::DiskFull
            | Self::PinsRemoved
            | Self::BpffsUnmounted
            | Self::Tenant(_) => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AgentKilled => write!(formatter, "agent killed"),
            Self::AgentStopped => write!(formatter, "agent stopped"),
            Self::AgentUpgraded => write!(formatter, "agent upgraded"),
            Self::AgentCrashLoop => write!(formatter, "agent in a crash loop"),
            Self::AgentWithoutMemory => write!(formatter, "agent without memory"),
            Self::BackendKilled(at) => write!(formatter, "lb{} killed", at + 1),
            Self::BackendStopped(at) => write!(formatter, "lb{} stopped", at + 1),
            Self::BackendObstructed(at, obstacle) => {
                write!(formatter, "lb{} {}", at + 1, word(*obstacle))
            }
            Self::UpstreamObstructed(at, obstacle) => {
                write!(formatter, "upstream {} {}", at + 1, word(*obstacle))
            }
            Self::DnsStopped => write!(formatter, "destination's DNS stopped"),
            Self::DnsKilled => write!(formatter, "destination's DNS killed"),
            Self::AddressesChanged(at) => write!(formatter, "destination is lb{} only", at + 1),
            Self::UplinkLossy => write!(formatter, "uplink lossy"),
            Self::UplinkSlow => write!(formatter, "uplink slow"),
            Self::RoutesChanged => write!(formatter, "routes changed"),
            Self::GuestReplaced => write!(formatter, "guest replaced"),
            Self::DiskFull => write!(formatter, "disk full"),
            Self::PinsRemoved => write!(formatter, "pins removed"),
            Self::BpffsUnmounted => write!(formatter, "bpf file system unmounted"),
            Self::ShimAddressRemoved => write!(formatter, "shim's address removed"),
            Self::Tenant(attack) => write!(formatter, "tenant: {attack}"),
        }
    }
}

fn word(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::Silent => "silent",
        Obstacle::Refusing => "refusing",
        Obstacle::Unreachable => "unreachable",
        Obstacle::Lossy => "lossy",
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::SynFlood => "flood of SYNs",
            Self::QueryFlood => "flood of queries",
            Self::SpoofedSyns => "spoofed SYNs",
            Self::RefusedConnects => "flood of refused connects",
            Self::MisboundConnects => "connects that cannot succeed",
            Self::HalfRequests => "half-requests to the admin listener",
            Self::ResolverCrowd => "crowd of resolvers",
            Self::SilentResolver => "silent resolver",
        })
    }
}
