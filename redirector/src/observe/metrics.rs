//! `/metrics`: OpenMetrics, read when it is scraped.
//!
//! No label holds what a client chose: routes are labelled with their source, at most a thousand of
//! them, and the others share one label.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    catalog::{Kind, METRICS, Metric},
    labels::{LabelValue, Labels},
    process, route_metrics,
    snapshot::{GuestSample, RouteSamples, Snapshot},
};
use crate::{
    dns::{DnsCounters, HistogramSnapshot, UpstreamHealth},
    net::source_ports,
};

/// The content type of a page.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Room for the text of a route, and for everything else.
const ROUTE_TEXT: usize = 2 << 10;
const OTHER_TEXT: usize = 64 << 10;
/// The last line of a page.
const END: &str = "# EOF\n";
/// How long the agent may take to answer.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(5);
/// Upstreams with a label of their own: the preferred ones.
const MAX_UPSTREAMS: usize = 32;

/// Where to request a snapshot; the agent's event loop answers.
pub type SnapshotRequests = mpsc::Sender<oneshot::Sender<Snapshot>>;

/// The metrics of one agent.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: SnapshotRequests,
    errors: Arc<AtomicU64>,
}

impl Metrics {
    /// Metrics whose snapshots are requested through `requests`.
    pub fn new(requests: SnapshotRequests) -> Self {
        Self { requests, errors: Arc::default() }
    }

    /// All metrics, in OpenMetrics. If the agent does not answer, those of its process and the
    /// count of errors.
    pub async fn scrape(&self) -> String {
        let began = Instant::now();
        let mut snapshot = self.snapshot().await;
        if let Some(snapshot) = &mut snapshot {
            snapshot.source_ports = source_ports(std::mem::take(&mut snapshot.backends)).await;
        }
        self.errors.fetch_add(snapshot.as_ref().map_or(1, |snapshot| snapshot.errors), Relaxed);
        encode(Scrape {
            snapshot,
            errors: self.errors.load(Relaxed),
            duration: began.elapsed().as_secs_f64(),
        })
    }

    /// The agent's numbers, if it answers.
    pub(super) async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, answer) = oneshot::channel();
        let requested = async {
            self.requests.send(reply).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(SNAPSHOT_TIMEOUT, requested).await.ok().flatten()
    }
}

fn encode(scrape: Scrape) -> String {
    let mut registry = Registry::default();
    let (samples, routes) = scrape.samples();
    // The page is not moved while it grows.
    let mut page = String::with_capacity(OTHER_TEXT + ROUTE_TEXT * routes.as_slice().len());
    registry.register_collector(Box::new(SampleCollector(Mutex::new(samples.0))));
    text::encode(&mut page, &registry).expect("writing to a string never fails");
    page.truncate(page.strip_suffix(END).map_or(page.len(), str::len));
    for metric in METRICS {
        if let Some(values) = route_metrics::values_of(metric) {
            route_metrics::write(&mut page, metric, values, routes.as_slice());
        }
    }
    page.push_str(END);
    page
}

/// What one scrape has read.
struct Scrape {
    snapshot: Option<Snapshot>,
    errors: u64,
    /// In seconds.
    duration: f64,
}

impl Scrape {
    /// The samples of everything but the routes, and the routes.
    fn samples(self) -> (Samples, RouteSamples) {
        let mut samples = Samples::default();
        samples.add("redirector_scrape_errors", self.errors as f64);
        samples.add("redirector_scrape_duration_seconds", self.duration);
        samples.add_labelled(
            "redirector_build_info",
            ("version", env!("CARGO_PKG_VERSION").into()),
            1.0,
        );
        for (name, value) in process::read() {
            samples.add(name, value);
        }
        let Some(snapshot) = self.snapshot else { return (samples, RouteSamples::default()) };
        samples.add_agent(&snapshot);
        samples.add_dns(&snapshot);
        samples.add_histogram("redirector_connect_seconds", Labels::None, snapshot.connects);
        (samples, snapshot.routes)
    }
}

/// Samples by the name of their metric.
#[derive(Default)]
struct Samples(BTreeMap<&'static str, Vec<(Labels, Value)>>);

/// The value of a sample.
enum Value {
    Number(f64),
    Histogram(HistogramSnapshot),
}

impl Samples {
    fn add(&mut self, name: &'static str, value: f64) {
        self.0.entry(name).or_default().push((Labels::None, Value::Number(value)));
    }

    fn add_labelled(
        &mut self,
        name: &'static str,
        (key, label): (&'static str, LabelValue),
        value: f64,
    ) {
        self.0.entry(name).or_default().push((Labels::one(key, label), Value::Number(value)));
    }

    fn add_histogram(&mut self, name: &'static str, labels: Labels, histogram: HistogramSnapshot) {
        self.0.entry(name).or_default().push((labels, Value::Histogram(histogram)));
    }

    fn add_agent(&mut self, snapshot: &Snapshot) {
        self.add("redirector_degraded", snapshot.degraded.into());
        for (code, number) in &snapshot.problems {
            self.add_labelled(
                "redirector_problems",
                ("code", code.as_str().into()),
                *number as f64,
            );
        }
        self.add("redirector_routes", snapshot.routes.number() as f64);
        self.add("redirector_dns_names", snapshot.names as f64);
        self.add("redirector_attached_cgroups", snapshot.cgroups as f64);
        for (state, number) in &snapshot.interfaces {
            self.add_labelled("redirector_interfaces", ("state", (*state).into()), *number as f64);
        }
        for at in &snapshot.source_ports {
            let labels = [
                ("source", at.source.to_string().into()),
                ("backend", at.backend.to_string().into()),
            ];
            self.0
                .entry("redirector_source_ports")
                .or_default()
                .push((Labels::Two(labels), Value::Number(at.ports as f64)));
        }
        for (event, number) in &snapshot.packets {
            let event = LabelValue::from(event.clone());
            self.add_labelled("redirector_packets", ("event", event), *number as f64);
        }
        self.add("redirector_restored", snapshot.restored as f64);
        self.add("redirector_log_lines_dropped", snapshot.dropped_log_lines as f64);
        self.add_guests(snapshot.guests.as_slice());
        self.add("redirector_pool_addresses", snapshot.pool.addresses as f64);
        self.add("redirector_pool_addresses_leased", snapshot.pool.leased as f64);
        self.add("redirector_heartbeat_age_seconds", snapshot.heartbeat_age);
        self.add("redirector_config_valid", snapshot.config.is_valid.into());
        self.add("redirector_config_loaded_timestamp_seconds", snapshot.config.loaded_at);
        for (kind, number) in &snapshot.changes {
            self.add_labelled("redirector_changes", ("kind", kind.clone().into()), *number as f64);
        }
        self.add("redirector_events", snapshot.events.emitted as f64);
        self.add("redirector_events_lost", snapshot.events.lost as f64);
        self.add("redirector_events_suppressed", snapshot.events.suppressed as f64);
        self.add("redirector_events_sampling_ratio", snapshot.events.sampling_ratio.into());
    }

    fn add_guests(&mut self, guests: &[GuestSample]) {
        for guest in guests {
            let name = LabelValue::from(guest.name.clone());
            for (state, number) in [("open", guest.open), ("half_open", guest.half_open)] {
                let labels = [("interface", name.clone()), ("state", state.into())];
                self.0
                    .entry("redirector_guest_flows")
                    .or_default()
                    .push((Labels::Two(labels), Value::Number(number as f64)));
            }
            self.add_labelled(
                "redirector_guest_flows_refused",
                ("interface", name),
                guest.refused as f64,
            );
        }
    }

    fn add_dns(&mut self, snapshot: &Snapshot) {
        for (name, value) in &snapshot.dns {
            let (label, value) = (LabelValue::from(name.clone()), *value as f64);
            match name.as_str() {
                "queries" => self.add("redirector_dns_queries", value),
                outcome if DnsCounters::OUTCOMES.contains(&outcome) => {
                    self.add_labelled("redirector_dns_outcomes", ("outcome", label), value)
                }
                _ => self.add_labelled("redirector_dns_incidents", ("incident", label), value),
            }
        }
        self.add("redirector_dns_intercepting", snapshot.is_intercepting.into());
        self.add("redirector_dns_intercepted", snapshot.intercepted as f64);
        self.add_labelled(
            "redirector_dns_not_intercepted",
            ("reason", "heartbeat_stale".into()),
            snapshot.bypassed as f64,
        );
        let stats = &snapshot.dns_stats;
        for &(kind, number) in &stats.types {
            self.add_labelled("redirector_dns_questions", ("type", kind.into()), number as f64);
        }
        for &(code, number) in &stats.codes {
            self.add_labelled(
                "redirector_dns_upstream_answers",
                ("code", code.into()),
                number as f64,
            );
        }
        for (answer, latency) in
            [("local", &stats.local_latency), ("forwarded", &stats.forward_latency)]
        {
            let labels = Labels::one("answer", answer);
            self.add_histogram("redirector_dns_seconds", labels, latency.clone());
        }
        snapshot.upstreams.iter().take(MAX_UPSTREAMS).for_each(|one| self.add_upstream(one));
    }

    fn add_upstream(&mut self, upstream: &UpstreamHealth) {
        let label = LabelValue::from(upstream.address.to_string());
        for (name, value) in [
            ("redirector_dns_upstream_up", f64::from(!upstream.ejected)),
            ("redirector_dns_upstream_queries", upstream.queries as f64),
            ("redirector_dns_upstream_failures", upstream.failures as f64),
        ] {
            self.add_labelled(name, ("upstream", label.clone()), value);
        }
        let labels = Labels::one("upstream", label);
        self.add_histogram("redirector_dns_upstream_seconds", labels, upstream.latency.clone());
    }
}

/// Encodes the samples of one scrape, except those of routes.
struct SampleCollector(Mutex<BTreeMap<&'static str, Vec<(Labels, Value)>>>);

impl fmt::Debug for SampleCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SampleCollector")
    }
}

impl Collector for SampleCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let samples = self.0.lock();
        for metric in METRICS {
            let of_metric = samples.get(metric.name).map_or(&[][..], Vec::as_slice);
            encode_family(&mut encoder, metric, of_metric)?;
        }
        Ok(())
    }
}

fn encode_family(
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
        // OpenMetrics allows no empty braces, so a sample without labels has no family of its own.
        match labels.as_slice() {
            [] => encode_value(&mut family, metric, value)?,
            labels => encode_value(&mut family.encode_family(&labels)?, metric, value)?,
        }
    }
    Ok(())
}

fn encode_value(encoder: &mut MetricEncoder<'_>, metric: &Metric, value: &Value) -> fmt::Result {
    match value {
        Value::Number(value) if metric.kind == Kind::Counter => {
            encoder.encode_counter::<NoLabelSet, f64, u64>(value, None)
        }
        Value::Number(value) => encoder.encode_gauge(value),
        Value::Histogram(histogram) => encoder.encode_histogram::<NoLabelSet>(
            histogram.sum_seconds,
            histogram.count(),
            &histogram.buckets,
            None,
        ),
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
