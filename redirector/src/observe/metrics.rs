//! `/metrics`: OpenMetrics, read when it is asked for. Every metric stands in one table, [`METRICS`], and so does its documentation.
//!
//! No label holds what a client chose: routes are told apart by their source, and at most [`ROUTES`] of them; the others are one.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    labels::{Label, Labels, Word},
    process,
};
use crate::dns::{DnsTally, Latency, UpstreamHealth};

/// What an answer of [`Metrics::scrape`] is, for its HTTP header.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Routes with a label of their own, those with the lowest virtual addresses; the sum of all others is labelled [`OTHERS`].
pub(super) const ROUTES: usize = 1000;
/// The label of the routes beyond [`ROUTES`]. No source has a blank.
pub(super) const OTHERS: &str = "other routes";
/// Room for the text of [`ROUTES`], some 2 KiB each.
const PAGE: usize = 4 << 20;
/// How long the agent may take to tell.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the agent tells when it is asked.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every route, in the order of virtual addresses.
    pub routes: Vec<RouteSample>,
    /// Codes of problems, with how often each occurs.
    pub problems: BTreeMap<String, u64>,
    /// Whether a problem degrades.
    pub degraded: bool,
    /// The shim's counters, by name.
    pub dns: BTreeMap<String, u64>,
    /// Its queries by type, code and time.
    pub tally: DnsTally,
    /// How its upstreams are doing.
    pub upstreams: Vec<UpstreamHealth>,
    /// Whether the DNS of executors is intercepted.
    pub intercepting: bool,
    /// Connects and datagrams of executors to port 53: taken to the shim, left alone without a sign of life, left alone without a slot.
    pub intercepted: [u64; 3],
    /// Names that DNS answers.
    pub names: u64,
    /// Cgroups that the programs are attached to.
    pub cgroups: u64,
    /// Addresses of the pool, and those that are leased.
    pub pool: [u64; 2],
    /// Seconds since the last sign of life to the kernel.
    pub heartbeat_age: f64,
    /// Whether the configuration file's present content serves, and when what serves was read (seconds since 1970).
    pub config: (bool, f64),
    /// Changes of routes since the start, by kind.
    pub changes: BTreeMap<String, u64>,
    /// How long connects of all routes took to be established.
    pub connects: Latency,
    /// Events that were told since the agent's start, those that the full ring has lost since the tables were made, and the share of successes that is
    /// told: one in so many.
    pub events: [u64; 3],
    /// Readings that failed.
    pub errors: u64,
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
    /// Eligible backends, and those set aside.
    pub backends: [u64; 2],
    /// Counters by the names that [`METRICS`] uses.
    pub counters: Vec<(&'static str, f64)>,
    /// How connects ended, by result.
    pub ended: [(&'static str, u64); 6],
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, without `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// A value of now.
    Gauge,
    /// Times by class, in seconds.
    Histogram,
}

impl Kind {
    /// What its samples have behind the name.
    pub fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["_total"],
            Self::Gauge => &[""],
            Self::Histogram => &["_bucket", "_count", "_sum"],
        }
    }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, help }
}

/// Every metric, in the order in which they are told.
pub const METRICS: &[Metric] = &[
    gauge("redirector_build_info", &["version"], "1, with the agent's version"),
    gauge("redirector_degraded", &[], "1 while something is amiss, as status says it"),
    gauge("redirector_problems", &["code"], "Problems by code, as status lists them; absent while there is none"),
    gauge("redirector_routes", &[], "Routes that are configured"),
    gauge("redirector_dns_names", &[], "Sources that DNS answers"),
    gauge("redirector_attached_cgroups", &[], "Cgroups that the programs are attached to"),
    gauge("redirector_pool_addresses", &[], "Virtual addresses that can be leased"),
    gauge("redirector_pool_addresses_leased", &[], "Virtual addresses that are leased"),
    gauge("redirector_heartbeat_age_seconds", &[], "Time since the agent's last sign of life to the kernel; above 2 it counts as dead"),
    gauge("redirector_config_valid", &[], "1 while the configuration file's present content serves"),
    gauge("redirector_config_loaded_timestamp_seconds", &[], "When the configuration that serves was read, seconds since 1970"),
    counter("redirector_changes", &["kind"], "Changes of routes by commands, imports, rollbacks and reloads since the agent's start"),
    histogram(
        "redirector_connect_seconds",
        &[],
        "Time from connect to established, of all routes, since the tables in the kernel were made",
    ),
    counter("redirector_events", &[], "Events of single connects that were told since the agent's start"),
    counter("redirector_events_lost", &[], "Events that the full ring between kernel and agent did not take, since the tables were made"),
    gauge("redirector_events_one_in", &[], "Of so many successes one is told; 1 unless there is pressure. Failures are all told"),
    gauge("redirector_route_live", &["source"], "1 while the kernel has the route and DNS answers it"),
    gauge(
        "redirector_route_destination_fresh",
        &["source"],
        "1 while the addresses are the resolver's last answer, or literal; 0: kept, or unknown",
    ),
    gauge("redirector_route_backends", &["source", "state"], "Backends, eligible and set_aside"),
    counter("redirector_route_connects_started", &["source"], "Connects that were redirected"),
    counter(
        "redirector_route_connects_ended",
        &["source", "result"],
        "How they ended: established, refused, timed_out, unreachable, aborted, unsent; started is their sum and what is in flight",
    ),
    counter("redirector_route_connections_closed", &["source"], "Established connections that have ended"),
    counter("redirector_route_connects_denied", &["source"], "Connects refused here: an unlisted port, or no backend"),
    counter("redirector_route_connects_passed", &["source"], "Connects left alone since there was no backend (on_no_backend = \"pass\")"),
    counter("redirector_route_connects_desperate", &["source"], "Connects sent to a backend that is set aside, since all were"),
    counter("redirector_route_connect_seconds", &["source"], "Time from connect to established, summed over the established ones"),
    counter(
        "redirector_route_round_trip_seconds",
        &["source"],
        "Smoothed round-trip times at the end of connections, summed over those that have ended",
    ),
    counter("redirector_route_received_bytes", &["source"], "Bytes received on connections that have ended"),
    counter("redirector_route_sent_bytes", &["source"], "Bytes acknowledged on connections that have ended"),
    counter(
        "redirector_route_dns_answers",
        &["source"],
        "DNS queries for the source that were answered with its virtual or real addresses, or with none",
    ),
    counter("redirector_dns_queries", &[], "Queries received over UDP and TCP"),
    counter("redirector_dns_questions", &["type"], "The same by what they ask for; rare types are `other`"),
    counter(
        "redirector_dns_outcomes",
        &["outcome"],
        "What became of them: answered, nodata and pending by us, forwarded, servfail, formerr, notimp, refused, limited, dropped; queries is their sum",
    ),
    counter(
        "redirector_dns_incidents",
        &["incident"],
        "What else happened to queries: timeouts, overload, replies that did not fit, and such",
    ),
    counter("redirector_dns_upstream_answers", &["code"], "Replies of upstreams that were passed on, by response code"),
    histogram("redirector_dns_seconds", &["answer"], "Time from a query to its answer: local, forwarded"),
    gauge("redirector_dns_upstream_up", &["upstream"], "1 while the upstream is asked; 0: it failed, and others are asked in its place"),
    counter("redirector_dns_upstream_queries", &["upstream"], "Queries that the upstream was sent"),
    counter("redirector_dns_upstream_failures", &["upstream"], "Queries that it did not answer within a second, or did not take"),
    histogram("redirector_dns_upstream_seconds", &["upstream"], "How long its replies took"),
    gauge("redirector_dns_intercepting", &[], "1 while the DNS of executors is taken to the shim"),
    counter("redirector_dns_intercepted", &[], "Connects and unconnected datagrams of executors to port 53 that were taken to the shim"),
    counter(
        "redirector_dns_not_intercepted",
        &["reason"],
        "Those that were left alone: stale, since the agent gave no sign of life; crowded, since too many resolvers were asked",
    ),
    counter("redirector_scrape_errors", &[], "Readings that failed, in the kernel or of the agent, since its start"),
    gauge("redirector_scrape_duration_seconds", &[], "How long reading took, this time"),
    counter("process_cpu_seconds", &[], "User and system time of the agent"),
    gauge("process_resident_memory_bytes", &[], "Resident memory of the agent"),
    gauge("process_virtual_memory_bytes", &[], "Virtual memory of the agent"),
    gauge("process_open_fds", &[], "Open file descriptors of the agent"),
    gauge("process_max_fds", &[], "How many it may open"),
    gauge("process_threads", &[], "Threads of the agent"),
    gauge("process_start_time_seconds", &[], "When the agent was started, seconds since 1970"),
];

/// Outcomes of DNS queries; what else the shim counts are incidents.
const OUTCOMES: [&str; 10] =
    ["answered", "nodata", "forwarded", "servfail", "formerr", "notimp", "refused", "pending", "limited", "dropped"];
/// Upstreams with a label of their own: those that are asked first.
const UPSTREAMS: usize = 32;

/// Where to ask for a snapshot: the agent's owner task answers.
pub type Asking = mpsc::Sender<oneshot::Sender<Snapshot>>;

/// The metrics of one agent.
#[derive(Clone, Debug)]
pub struct Metrics {
    asking: Asking,
    errors: Arc<AtomicU64>,
}

impl Metrics {
    /// Metrics that are asked for over `asking`.
    pub fn new(asking: Asking) -> Self {
        Self { asking, errors: Arc::default() }
    }

    /// Everything, as OpenMetrics. An agent that does not answer leaves its process and the count of errors to be told.
    pub async fn scrape(&self) -> String {
        let began = Instant::now();
        let (reply, answer) = oneshot::channel();
        let asked = async { self.asking.send(reply).await.ok().map(|()| answer) };
        let snapshot = tokio::time::timeout(PATIENCE, async { asked.await?.await.ok() }).await.ok().flatten();
        self.errors.fetch_add(snapshot.as_ref().map_or(1, |snapshot| snapshot.errors), Relaxed);
        let read = Read { snapshot, errors: self.errors.load(Relaxed), took: began.elapsed().as_secs_f64() };
        encode(read)
    }
}

fn encode(read: Read) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Told(Mutex::new(read.samples()))));
    // The page is not moved while it grows, and takes no more memory than it has.
    let mut page = String::with_capacity(PAGE);
    text::encode(&mut page, &registry).expect("a string takes everything");
    page
}

/// What one scrape has read.
struct Read {
    snapshot: Option<Snapshot>,
    errors: u64,
    took: f64,
}

type Samples = BTreeMap<&'static str, Vec<(Labels, Value)>>;

/// One sample's.
enum Value {
    Number(f64),
    Times(Latency),
}

impl Read {
    fn samples(self) -> Samples {
        let mut samples = Samples::new();
        let mut add =
            |name: &'static str, labels: Labels, value: f64| samples.entry(name).or_default().push((labels, Value::Number(value)));
        add("redirector_scrape_errors", Labels::None, self.errors as f64);
        add("redirector_scrape_duration_seconds", Labels::None, self.took);
        add("redirector_build_info", Labels::one("version", env!("CARGO_PKG_VERSION")), 1.0);
        for (name, value) in process::read() {
            add(name, Labels::None, value);
        }
        let Some(snapshot) = self.snapshot else { return samples };
        add("redirector_degraded", Labels::None, snapshot.degraded.into());
        for (code, number) in snapshot.problems {
            add("redirector_problems", Labels::one("code", code), number as f64);
        }
        add("redirector_routes", Labels::None, snapshot.routes.len() as f64);
        add("redirector_dns_names", Labels::None, snapshot.names as f64);
        add("redirector_attached_cgroups", Labels::None, snapshot.cgroups as f64);
        add("redirector_pool_addresses", Labels::None, snapshot.pool[0] as f64);
        add("redirector_pool_addresses_leased", Labels::None, snapshot.pool[1] as f64);
        add("redirector_heartbeat_age_seconds", Labels::None, snapshot.heartbeat_age);
        add("redirector_config_valid", Labels::None, snapshot.config.0.into());
        add("redirector_config_loaded_timestamp_seconds", Labels::None, snapshot.config.1);
        for (kind, number) in snapshot.changes {
            add("redirector_changes", Labels::one("kind", kind), number as f64);
        }
        for (name, value) in ["redirector_events", "redirector_events_lost", "redirector_events_one_in"].into_iter().zip(snapshot.events) {
            add(name, Labels::None, value as f64);
        }
        for route in bounded(snapshot.routes) {
            of_route(route, &mut add);
        }
        for (name, value) in snapshot.dns {
            match name.as_str() {
                "queries" => add("redirector_dns_queries", Labels::None, value as f64),
                outcome if OUTCOMES.contains(&outcome) => add("redirector_dns_outcomes", Labels::one("outcome", name), value as f64),
                _ => add("redirector_dns_incidents", Labels::one("incident", name), value as f64),
            }
        }
        let [taken, stale, crowded] = snapshot.intercepted;
        add("redirector_dns_intercepting", Labels::None, snapshot.intercepting.into());
        add("redirector_dns_intercepted", Labels::None, taken as f64);
        add("redirector_dns_not_intercepted", Labels::one("reason", "stale"), stale as f64);
        add("redirector_dns_not_intercepted", Labels::one("reason", "crowded"), crowded as f64);
        of_types_and_codes(&snapshot.tally, &mut add);
        let upstreams = &snapshot.upstreams[..snapshot.upstreams.len().min(UPSTREAMS)];
        for upstream in upstreams {
            of_upstream(upstream, &mut add);
        }
        let local = ("redirector_dns_seconds", ("answer", Word::Fixed("local")), snapshot.tally.local);
        let forwarded = ("redirector_dns_seconds", ("answer", Word::Fixed("forwarded")), snapshot.tally.forwarded);
        let each = upstreams.iter().map(|at| ("redirector_dns_upstream_seconds", label_of(at), at.latency.clone()));
        samples.insert("redirector_connect_seconds", vec![(Labels::None, Value::Times(snapshot.connects))]);
        for (name, label, times) in [local, forwarded].into_iter().chain(each) {
            samples.entry(name).or_default().push((Labels::One([label]), Value::Times(times)));
        }
        samples
    }
}

fn of_types_and_codes(tally: &DnsTally, add: &mut impl FnMut(&'static str, Labels, f64)) {
    for &(kind, number) in &tally.types {
        add("redirector_dns_questions", Labels::one("type", kind), number as f64);
    }
    for &(code, number) in &tally.codes {
        add("redirector_dns_upstream_answers", Labels::one("code", code), number as f64);
    }
}

fn label_of(upstream: &UpstreamHealth) -> Label {
    ("upstream", upstream.address.to_string().into())
}

fn of_upstream(upstream: &UpstreamHealth, add: &mut impl FnMut(&'static str, Labels, f64)) {
    let label = || Labels::One([label_of(upstream)]);
    add("redirector_dns_upstream_up", label(), (!upstream.set_aside).into());
    add("redirector_dns_upstream_queries", label(), upstream.asked as f64);
    add("redirector_dns_upstream_failures", label(), upstream.failed as f64);
}

fn of_route(route: RouteSample, add: &mut impl FnMut(&'static str, Labels, f64)) {
    let source = Word::from(route.source);
    let source = || ("source", source.clone());
    add("redirector_route_live", Labels::One([source()]), route.live.into());
    add("redirector_route_destination_fresh", Labels::One([source()]), route.fresh.into());
    for (state, number) in ["eligible", "set_aside"].into_iter().zip(route.backends) {
        add("redirector_route_backends", Labels::Two([source(), ("state", state.into())]), number as f64);
    }
    for (result, number) in route.ended {
        add("redirector_route_connects_ended", Labels::Two([source(), ("result", result.into())]), number as f64);
    }
    for &(name, value) in &route.counters {
        add(name, Labels::One([source()]), value);
    }
}

/// The first [`ROUTES`], and one that is the sum of all others.
fn bounded(mut routes: Vec<RouteSample>) -> Vec<RouteSample> {
    if routes.len() <= ROUTES {
        return routes;
    }
    let mut others = routes.split_off(ROUTES).into_iter();
    let mut sum = others.next().expect("there are more");
    for other in others {
        sum.live &= other.live;
        sum.fresh &= other.fresh;
        sum.backends = [0, 1].map(|n| sum.backends[n] + other.backends[n]);
        for (mine, theirs) in sum.counters.iter_mut().zip(other.counters) {
            mine.1 += theirs.1;
        }
        for (mine, theirs) in sum.ended.iter_mut().zip(other.ended) {
            mine.1 += theirs.1;
        }
    }
    routes.push(RouteSample { source: OTHERS.to_owned(), ..sum });
    routes
}

/// One scrape's samples, on their way into the text.
struct Told(Mutex<Samples>);

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for metric in METRICS {
            let Some(samples) = samples.get(metric.name) else { continue };
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for (labels, value) in samples {
                // Without labels a family of one: OpenMetrics wants no empty braces.
                match labels.as_slice() {
                    [] => put(&mut family, metric, value)?,
                    labels => put(&mut family.encode_family(&labels)?, metric, value)?,
                }
            }
        }
        Ok(())
    }
}

fn put(encoder: &mut prometheus_client::encoding::MetricEncoder<'_>, metric: &Metric, value: &Value) -> fmt::Result {
    match value {
        Value::Number(value) if metric.kind == Kind::Counter => encoder.encode_counter::<NoLabelSet, f64, u64>(value, None),
        Value::Number(value) => encoder.encode_gauge(value),
        Value::Times(times) => encoder.encode_histogram::<NoLabelSet>(times.seconds, times.number(), &times.classes, None),
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
