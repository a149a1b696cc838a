//! `/metrics`: OpenMetrics, read when it is asked for.
//!
//! No label holds what a client chose: routes are told apart by their source, and at most a
//! thousand of them; the others are one.

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
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    catalog::{Kind, METRICS, Metric},
    labels::{Label, Labels, Word},
    process, route_metrics,
    snapshot::{RouteSamples, Snapshot},
};
use crate::dns::{DnsCounters, HistogramSnapshot, QueryStatsSnapshot, UpstreamHealth};

/// What an answer of [`Metrics::scrape`] is, for its HTTP header.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Room for the text of a route, and of everything else.
const ROUTE_TEXT: usize = 2 << 10;
const OTHER_TEXT: usize = 64 << 10;
/// The last line of a page.
const END: &str = "# EOF\n";
/// How long the agent may take to tell.
const PATIENCE: Duration = Duration::from_secs(5);

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

    /// Everything, as OpenMetrics. An agent that does not answer leaves its process and the count
    /// of errors to be told.
    pub async fn scrape(&self) -> String {
        let began = Instant::now();
        let (reply, answer) = oneshot::channel();
        let asked = async { self.asking.send(reply).await.ok().map(|()| answer) };
        let snapshot =
            tokio::time::timeout(PATIENCE, async { asked.await?.await.ok() }).await.ok().flatten();
        self.errors.fetch_add(snapshot.as_ref().map_or(1, |snapshot| snapshot.errors), Relaxed);
        let read = Read {
            snapshot,
            errors: self.errors.load(Relaxed),
            took: began.elapsed().as_secs_f64(),
        };
        encode(read)
    }
}

fn encode(read: Read) -> String {
    let mut registry = Registry::default();
    let (samples, routes) = read.samples();
    // The page is not moved while it grows.
    let mut page = String::with_capacity(OTHER_TEXT + ROUTE_TEXT * routes.told().len());
    registry.register_collector(Box::new(Told(Mutex::new(samples))));
    text::encode(&mut page, &registry).expect("a string takes everything");
    page.truncate(page.strip_suffix(END).map_or(page.len(), str::len));
    for (metric, says) in
        METRICS.iter().filter_map(|metric| Some((metric, route_metrics::says(metric)?)))
    {
        route_metrics::write(&mut page, metric, says, routes.told());
    }
    page.push_str(END);
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
    Times(HistogramSnapshot),
}

impl Read {
    /// The samples of everything but the routes, and the routes.
    fn samples(self) -> (Samples, RouteSamples) {
        let mut samples = Samples::new();
        let mut add = |name: &'static str, labels: Labels, value: f64| {
            samples.entry(name).or_default().push((labels, Value::Number(value)))
        };
        add("redirector_scrape_errors", Labels::None, self.errors as f64);
        add("redirector_scrape_duration_seconds", Labels::None, self.took);
        add("redirector_build_info", Labels::one("version", env!("CARGO_PKG_VERSION")), 1.0);
        for (name, value) in process::read() {
            add(name, Labels::None, value);
        }
        let Some(snapshot) = self.snapshot else { return (samples, RouteSamples::default()) };
        add("redirector_degraded", Labels::None, snapshot.degraded.into());
        for (code, number) in snapshot.problems {
            add("redirector_problems", Labels::one("code", code), number as f64);
        }
        add("redirector_routes", Labels::None, snapshot.routes.number() as f64);
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
        for (name, value) in
            ["redirector_events", "redirector_events_lost", "redirector_events_sampling_ratio"]
                .into_iter()
                .zip(snapshot.events)
        {
            add(name, Labels::None, value as f64);
        }
        for (name, value) in snapshot.dns {
            match name.as_str() {
                "queries" => add("redirector_dns_queries", Labels::None, value as f64),
                outcome if DnsCounters::OUTCOMES.contains(&outcome) => {
                    add("redirector_dns_outcomes", Labels::one("outcome", name), value as f64)
                }
                _ => add("redirector_dns_incidents", Labels::one("incident", name), value as f64),
            }
        }
        let [taken, stale, crowded] = snapshot.intercepted;
        add("redirector_dns_intercepting", Labels::None, snapshot.intercepting.into());
        add("redirector_dns_intercepted", Labels::None, taken as f64);
        add(
            "redirector_dns_not_intercepted",
            Labels::one("reason", "heartbeat_stale"),
            stale as f64,
        );
        add(
            "redirector_dns_not_intercepted",
            Labels::one("reason", "resolver_slots_full"),
            crowded as f64,
        );
        of_types_and_codes(&snapshot.dns_stats, &mut add);
        let upstreams = &snapshot.upstreams[..snapshot.upstreams.len().min(UPSTREAMS)];
        for upstream in upstreams {
            of_upstream(upstream, &mut add);
        }
        let local = (
            "redirector_dns_seconds",
            ("answer", Word::Fixed("local")),
            snapshot.dns_stats.local_latency,
        );
        let forwarded = (
            "redirector_dns_seconds",
            ("answer", Word::Fixed("forwarded")),
            snapshot.dns_stats.forward_latency,
        );
        let each = upstreams
            .iter()
            .map(|at| ("redirector_dns_upstream_seconds", label_of(at), at.latency.clone()));
        samples.insert(
            "redirector_connect_seconds",
            vec![(Labels::None, Value::Times(snapshot.connects))],
        );
        for (name, label, times) in [local, forwarded].into_iter().chain(each) {
            samples.entry(name).or_default().push((Labels::One([label]), Value::Times(times)));
        }
        (samples, snapshot.routes)
    }
}

fn of_types_and_codes(stats: &QueryStatsSnapshot, add: &mut impl FnMut(&'static str, Labels, f64)) {
    for &(kind, number) in &stats.types {
        add("redirector_dns_questions", Labels::one("type", kind), number as f64);
    }
    for &(code, number) in &stats.codes {
        add("redirector_dns_upstream_answers", Labels::one("code", code), number as f64);
    }
}

fn label_of(upstream: &UpstreamHealth) -> Label {
    ("upstream", upstream.address.to_string().into())
}

fn of_upstream(upstream: &UpstreamHealth, add: &mut impl FnMut(&'static str, Labels, f64)) {
    let label = || Labels::One([label_of(upstream)]);
    add("redirector_dns_upstream_up", label(), (!upstream.ejected).into());
    add("redirector_dns_upstream_queries", label(), upstream.queries as f64);
    add("redirector_dns_upstream_failures", label(), upstream.failures as f64);
}

/// One scrape's samples but those of routes, on their way into the text.
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
            write_samples(
                &mut encoder,
                metric,
                samples.get(metric.name).map_or(&[], Vec::as_slice),
            )?;
        }
        Ok(())
    }
}

fn write_samples(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    samples: &[(Labels, Value)],
) -> fmt::Result {
    if samples.is_empty() {
        return Ok(());
    }
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
    Ok(())
}

fn put(encoder: &mut MetricEncoder<'_>, metric: &Metric, value: &Value) -> fmt::Result {
    match value {
        Value::Number(value) if metric.kind == Kind::Counter => {
            encoder.encode_counter::<NoLabelSet, f64, u64>(value, None)
        }
        Value::Number(value) => encoder.encode_gauge(value),
        Value::Times(times) => encoder.encode_histogram::<NoLabelSet>(
            times.sum_seconds,
            times.count(),
            &times.buckets,
            None,
        ),
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
