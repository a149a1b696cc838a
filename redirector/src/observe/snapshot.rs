//! The numbers behind the metrics, independent of their text format.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use crate::{
    control::api::{BackendView, Counters, Problem, ProblemCode},
    dns::{HistogramSnapshot, QueryStatsSnapshot, UpstreamHealth},
    net::SourcePorts,
};

/// Everything that a scrape reads from the agent.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The configured routes.
    pub routes: RouteSamples,
    /// Problems by code.
    pub problems: BTreeMap<ProblemCode, u64>,
    /// The first of them, those that degrade the agent before others.
    pub first_problems: Vec<Problem>,
    /// Whether a problem degrades the agent.
    pub degraded: bool,
    /// The shim's counters, by name.
    pub dns: BTreeMap<String, u64>,
    /// The shim's queries by type, code and latency.
    pub dns_stats: QueryStatsSnapshot,
    /// The health of its upstreams.
    pub upstreams: Vec<UpstreamHealth>,
    /// Whether DNS of executors is intercepted.
    pub is_intercepting: bool,
    /// Connects and datagrams of executors to port 53 that went to the shim.
    pub intercepted: u64,
    /// Those that went to their resolver, since the agent's heartbeat was stale.
    pub bypassed: u64,
    /// What the packet programs counted, by name.
    pub packets: BTreeMap<String, u64>,
    /// Interfaces by what serves a guest's packets there.
    pub interfaces: BTreeMap<&'static str, u64>,
    /// The addresses of all backends.
    pub backends: HashSet<IpAddr>,
    /// Source ports in use towards them; the reader of the snapshot counts them.
    pub source_ports: Vec<SourcePorts>,
    /// What other processes had removed and was restored.
    pub restored: u64,
    /// The flows of guests by interface.
    pub guests: GuestSamples,
    /// Sources that DNS answers.
    pub names: u64,
    /// Cgroups that the programs are attached to.
    pub cgroups: u64,
    /// The pool of virtual addresses.
    pub pool: PoolSample,
    /// Seconds since the last heartbeat to the kernel.
    pub heartbeat_age: f64,
    /// The configuration file.
    pub config: ConfigSample,
    /// Route changes since the agent started, by action.
    pub changes: BTreeMap<String, u64>,
    /// Time from connect to established, of all routes.
    pub connects: HistogramSnapshot,
    /// Connect events.
    pub events: EventSamples,
    /// Lines of the log that are missing.
    pub dropped_log_lines: u64,
    /// Reads that failed.
    pub errors: u64,
}

/// The pool of virtual addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolSample {
    /// Addresses that can be leased.
    pub addresses: u64,
    /// Addresses that are leased.
    pub leased: u64,
}

/// The configuration file.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfigSample {
    /// Whether its present content is in force.
    pub is_valid: bool,
    /// When the configuration in force was read, seconds since 1970.
    pub loaded_at: f64,
}

/// Connect events.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventSamples {
    /// Events emitted since the agent started.
    pub emitted: u64,
    /// Events lost because the ring buffer was full, since the maps were created.
    pub lost: u64,
    /// Failures left out since their client had too many, since the maps were created.
    pub suppressed: u64,
    /// The sampling ratio of successes.
    pub sampling_ratio: u32,
}

/// Interfaces of guests with a label of their own, those with the lowest indices; the sum of all
/// others is labelled [`OTHER_INTERFACES`].
pub(super) const MAX_INTERFACES: usize = 250;
/// The label of the interfaces beyond [`MAX_INTERFACES`]. No interface's name contains a blank.
pub(super) const OTHER_INTERFACES: &str = "other interfaces";

/// The flows of the first 250 interfaces of guests by index, and the sum of all others.
#[derive(Clone, Debug, Default)]
pub struct GuestSamples(Vec<GuestSample>);

impl GuestSamples {
    /// Adds the next interface, in the order of indices.
    pub fn push(&mut self, guest: GuestSample) {
        match self.0.len() {
            ..MAX_INTERFACES => self.0.push(guest),
            MAX_INTERFACES => {
                self.0.push(GuestSample { name: OTHER_INTERFACES.to_owned(), ..guest });
            }
            _ => {
                let others = &mut self.0[MAX_INTERFACES];
                others.open += guest.open;
                others.half_open += guest.half_open;
                others.refused += guest.refused;
            }
        }
    }

    pub(super) fn as_slice(&self) -> &[GuestSample] {
        &self.0
    }
}

/// The flows of a guest's interface.
#[derive(Clone, Debug, Default)]
pub struct GuestSample {
    /// Its name.
    pub name: String,
    /// Established flows.
    pub open: u64,
    /// Flows whose SYN has no answer yet.
    pub half_open: u64,
    /// New flows refused for want of room.
    pub refused: u64,
}

/// Routes with a label of their own, those with the lowest virtual addresses; the sum of all others
/// is labelled [`OTHERS`].
pub(super) const MAX_LABELLED: usize = 1000;
/// The label of the routes beyond [`MAX_LABELLED`]. No source contains a blank.
pub(super) const OTHERS: &str = "other routes";

/// The numbers of the first 1,000 routes by virtual address, and the sum of all others.
#[derive(Clone, Debug, Default)]
pub struct RouteSamples {
    samples: Vec<RouteSample>,
    number: u64,
}

impl RouteSamples {
    /// Adds the next route, in the order of virtual addresses.
    pub fn push(&mut self, route: RouteSample) {
        self.number += 1;
        match self.samples.len() {
            ..MAX_LABELLED => self.samples.push(route),
            MAX_LABELLED => self.samples.push(RouteSample {
                source: OTHERS.to_owned(),
                ejections: vec![],
                backends: vec![],
                ..route
            }),
            _ => self.samples[MAX_LABELLED].add(&route),
        }
    }

    /// Whether the next route has a label of its own.
    pub fn has_room(&self) -> bool {
        self.samples.len() < MAX_LABELLED
    }

    /// How many routes there are.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn as_slice(&self) -> &[RouteSample] {
        &self.samples
    }
}

/// An ejection of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EjectionSample {
    /// The backend and its port.
    pub backend: std::net::SocketAddr,
    /// The cgroup or the interface that avoids it; `all`.
    pub client: String,
}

/// A route's numbers.
#[derive(Clone, Debug, Default)]
pub struct RouteSample {
    /// Its source.
    pub source: String,
    /// Whether the kernel has it and DNS answers it.
    pub live: bool,
    /// Whether its addresses are the resolver's last answer, or literal.
    pub fresh: bool,
    /// Backends that are not ejected.
    pub eligible: u64,
    /// Backends that are.
    pub ejected: u64,
    /// The ejections of its backends, by port and client; none for several routes together.
    pub ejections: Vec<EjectionSample>,
    /// Its backends; none for several routes together.
    pub backends: Vec<BackendView>,
    /// Its counters in the kernel.
    pub counters: Counters,
    /// DNS queries for the source that the shim answered.
    pub dns_answers: u64,
    /// Those that were answered by packet.
    pub packet_answers: u64,
}

impl RouteSample {
    /// Adds the numbers of another route.
    fn add(&mut self, other: &Self) {
        self.live &= other.live;
        self.fresh &= other.fresh;
        self.eligible += other.eligible;
        self.ejected += other.ejected;
        self.counters += other.counters;
        self.dns_answers += other.dns_answers;
        self.packet_answers += other.packet_answers;
    }
}
