//! What the agent tells to a scrape: plain numbers, which know nothing of how they are written.

use std::collections::BTreeMap;

use crate::dns::{HistogramSnapshot, QueryStatsSnapshot, UpstreamHealth};

/// What the agent tells when it is asked.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Routes that are configured.
    pub routes: RouteSamples,
    /// Codes of problems, with how often each occurs.
    pub problems: BTreeMap<String, u64>,
    /// Whether a problem degrades.
    pub degraded: bool,
    /// The shim's counters, by name.
    pub dns: BTreeMap<String, u64>,
    /// Its queries by type, code and time.
    pub dns_stats: QueryStatsSnapshot,
    /// How its upstreams are doing.
    pub upstreams: Vec<UpstreamHealth>,
    /// Whether the DNS of executors is intercepted.
    pub intercepting: bool,
    /// Connects and datagrams of executors to port 53: taken to the shim, left alone without a sign
    /// of life, left alone without a slot.
    pub intercepted: [u64; 3],
    /// Names that DNS answers.
    pub names: u64,
    /// Cgroups that the programs are attached to.
    pub cgroups: u64,
    /// Addresses of the pool, and those that are leased.
    pub pool: [u64; 2],
    /// Seconds since the last sign of life to the kernel.
    pub heartbeat_age: f64,
    /// Whether the configuration file's present content serves, and when what serves was read
    /// (seconds since 1970).
    pub config: (bool, f64),
    /// Changes of routes since the start, by kind.
    pub changes: BTreeMap<String, u64>,
    /// How long connects of all routes took to be established.
    pub connects: HistogramSnapshot,
    /// Events that were told since the agent's start, those that the full ring has lost since the
    /// tables were made, and the share of successes that is told: one in so many.
    pub events: [u64; 3],
    /// Readings that failed.
    pub errors: u64,
}

/// Routes with a label of their own, those with the lowest virtual addresses; the sum of all others
/// is labelled [`OTHERS`].
pub(super) const ROUTES: usize = 1000;
/// The label of the routes beyond [`ROUTES`]. No source has a blank.
pub(super) const OTHERS: &str = "other routes";

/// The numbers of every route: of the first `ROUTES` by itself, of all others together.
#[derive(Clone, Debug, Default)]
pub struct RouteSamples {
    told: Vec<RouteSample>,
    number: u64,
}

impl RouteSamples {
    /// Takes the next route, in the order of virtual addresses.
    pub fn push(&mut self, route: RouteSample) {
        self.number += 1;
        match self.told.len() {
            ..ROUTES => self.told.push(route),
            ROUTES => self.told.push(RouteSample { source: OTHERS.to_owned(), ..route }),
            _ => self.told[ROUTES].add(&route),
        }
    }

    /// How many there are.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn told(&self) -> &[RouteSample] {
        &self.told
    }
}

/// A route's numbers.
#[derive(Clone, Debug, Default)]
pub struct RouteSample {
    /// Its source.
    pub source: String,
    /// Whether the kernel has it and DNS answers it.
    pub live: bool,
    /// Whether its addresses are the resolver's own last answer, or literal.
    pub fresh: bool,
    /// Backends that are not set aside.
    pub eligible: u64,
    /// Backends that are.
    pub set_aside: u64,
    /// Connects that were redirected.
    pub started: u64,
    /// How those ended: established, refused, timed out, unreachable, aborted, unsent.
    pub ended: [u64; 6],
    /// Established connections that have ended.
    pub closed: u64,
    /// Connects that were refused here.
    pub denied: u64,
    /// Connects that were left alone.
    pub passed: u64,
    /// Connects that were sent to a backend that is set aside.
    pub desperate: u64,
    /// Nanoseconds from connect to established, summed.
    pub connect_ns: u64,
    /// Smoothed round-trip times at the end of connections, in microseconds, summed.
    pub srtt_us: u64,
    /// Bytes received on connections that have ended.
    pub rx_bytes: u64,
    /// Bytes acknowledged on connections that have ended.
    pub tx_bytes: u64,
    /// DNS queries for the source that were answered.
    pub dns_answers: u64,
}

impl RouteSample {
    /// Takes another route in.
    fn add(&mut self, other: &Self) {
        self.live &= other.live;
        self.fresh &= other.fresh;
        for (mine, theirs) in self.ended.iter_mut().zip(other.ended) {
            *mine += theirs;
        }
        for (mine, theirs) in [
            (&mut self.eligible, other.eligible),
            (&mut self.set_aside, other.set_aside),
            (&mut self.started, other.started),
            (&mut self.closed, other.closed),
            (&mut self.denied, other.denied),
            (&mut self.passed, other.passed),
            (&mut self.desperate, other.desperate),
            (&mut self.connect_ns, other.connect_ns),
            (&mut self.srtt_us, other.srtt_us),
            (&mut self.rx_bytes, other.rx_bytes),
            (&mut self.tx_bytes, other.tx_bytes),
            (&mut self.dns_answers, other.dns_answers),
        ] {
            *mine += theirs;
        }
    }
}
