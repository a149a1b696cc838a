use std::collections::BTreeSet;

use super::*;
use crate::{
    control::api::{Counters, ProblemCode},
    dns::QueryStatsSnapshot,
    net::SourcePorts,
    observe::snapshot::{
        EjectionSample, EventSamples, GuestSample, GuestSamples, MAX_INTERFACES, MAX_LABELLED,
        OTHER_INTERFACES, PoolSample, RouteSample,
    },
};

fn route(source: &str, started: u64) -> RouteSample {
    RouteSample {
        source: source.to_owned(),
        live: true,
        fresh: true,
        eligible: 2,
        ejected: 1,
        ejections: vec![EjectionSample {
            backend: "203.0.113.7:443".parse().expect("an address"),
            client: "the cgroup /\"".to_owned(),
        }],
        backends: vec![],
        counters: Counters {
            started,
            established: 1,
            refused: 2,
            timed_out: 3,
            unreachable: 4,
            aborted: 5,
            unsent: 6,
            connect_ns: 1_500_000_000,
            srtt_us: 250_000,
            ..Counters::default()
        },
        dns_answers: 9,
        packet_answers: 4,
    }
}

fn guests(number: usize) -> GuestSamples {
    let mut samples = GuestSamples::default();
    (0..number).for_each(|n| {
        samples.push(GuestSample { name: format!("vm{n}"), open: 3, half_open: 2, refused: 1 });
    });
    samples
}

fn snapshot(routes: Vec<RouteSample>) -> Snapshot {
    let map = |names: &[&str]| names.iter().map(|&name| (name.to_owned(), 7)).collect();
    let mut samples = RouteSamples::default();
    routes.into_iter().for_each(|route| samples.push(route));
    Snapshot {
        routes: samples,
        problems: [(ProblemCode::ConfigError, 7)].into(),
        dns: map(&["queries", "answered", "timeouts"]),
        dns_stats: QueryStatsSnapshot::example(),
        upstreams: vec![UpstreamHealth::example()],
        connects: HistogramSnapshot {
            sum_seconds: 0.5,
            buckets: vec![(0.25, 3), (f64::INFINITY, 1)],
        },
        events: EventSamples { emitted: 20, lost: 3, suppressed: 5, sampling_ratio: 8 },
        changes: map(&["added"]),
        packets: map(&["names_answered"]),
        interfaces: [("guests", 3)].into(),
        source_ports: vec![SourcePorts {
            source: [192, 0, 2, 9].into(),
            backend: ([203, 0, 113, 7], 443).into(),
            ports: 12,
        }],
        guests: guests(1),
        pool: PoolSample { addresses: 65534, leased: 2 },
        ..Snapshot::default()
    }
}

fn page(snapshot: Snapshot) -> String {
    encode(Scrape { snapshot: Some(snapshot), errors: 0, duration: 0.001 })
}

/// The family that a line of the text belongs to.
fn family(line: &str) -> &str {
    let name = line.split(['{', ' ']).next().unwrap_or_default();
    let suffixes = ["_total", "_bucket", "_count", "_sum"];
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

#[test]
fn the_page_has_every_metric_of_the_catalog_and_no_other() {
    let page = page(snapshot(vec![route("a.internal", 9), route("*.b.internal", 5)]));
    let samples: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
    for metric in METRICS {
        let of: Vec<_> = samples.iter().filter(|line| family(line) == metric.name).collect();
        assert!(!of.is_empty(), "{} is missing", metric.name);
        for line in of {
            let keys: Vec<&str> = line.split_once('{').map_or(vec![], |(_, rest)| {
                rest.split("\",").map(|label| label.split('=').next().unwrap_or_default()).collect()
            });
            let (name, keys) = (
                line.split(['{', ' ']).next().expect("a name"),
                keys.iter().filter(|key| **key != "le").copied(),
            );
            assert_eq!(keys.collect::<Vec<_>>(), metric.labels, "{line}");
            assert!(metric.kind.suffixes().contains(&&name[metric.name.len()..]), "{line}");
        }
    }
    let families: BTreeSet<_> = samples.iter().map(|line| family(line)).collect();
    assert_eq!(families, METRICS.iter().map(|metric| metric.name).collect());
}

/// The rules of OpenMetrics that a scraper refuses a page for.
#[test]
fn the_page_is_openmetrics() {
    let page = page(snapshot((0..50).map(|n| route(&format!("host{n}.internal"), 1)).collect()));
    assert!(page.ends_with("# EOF\n"));
    let mut finished = BTreeSet::new();
    let mut current = "";
    let mut seen = BTreeSet::new();
    for line in page.lines().take_while(|line| *line != "# EOF") {
        let name = match line.strip_prefix("# ") {
            Some(about) => about.split(' ').nth(1).expect("a name"),
            None => {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(seen.insert(series), "twice: {series}");
                family(line)
            }
        };
        if name != current {
            assert!(finished.insert(name), "the family {name} is interrupted");
            assert!(line.starts_with("# HELP") || line.starts_with("# TYPE"), "{line}");
            current = name;
        }
    }
}

#[test]
fn the_page_has_the_numbers_of_the_snapshot() {
    let page = page(snapshot(vec![route("a.internal", 9)]));
    for line in [
        "redirector_route_connects_started_total{source=\"a.internal\"} 9.0",
        "redirector_route_connects_ended_total{source=\"a.internal\",result=\"timed_out\"} 3.0",
        "redirector_route_backends{source=\"a.internal\",state=\"ejected\"} 1.0",
        "redirector_dns_incidents_total{incident=\"timeouts\"} 7.0",
        "redirector_route_dns_answers_total{source=\"a.internal\",by=\"shim\"} 9.0",
        "redirector_route_dns_answers_total{source=\"a.internal\",by=\"packet\"} 4.0",
        "redirector_interfaces{state=\"guests\"} 3.0",
        "redirector_source_ports{source=\"192.0.2.9\",backend=\"203.0.113.7:443\"} 12.0",
        "redirector_packets_total{event=\"names_answered\"} 7.0",
        "redirector_guest_flows{interface=\"vm0\",state=\"open\"} 3.0",
        "redirector_guest_flows{interface=\"vm0\",state=\"half_open\"} 2.0",
        "redirector_guest_flows_refused_total{interface=\"vm0\"} 1.0",
        "redirector_dns_questions_total{type=\"AAAA\"} 3.0",
        "redirector_dns_upstream_answers_total{code=\"NXDOMAIN\"} 2.0",
        "redirector_dns_upstream_up{upstream=\"192.0.2.53:53\"} 0.0",
        "redirector_dns_seconds_bucket{le=\"0.00025\",answer=\"forwarded\"} 1",
        "redirector_dns_seconds_bucket{le=\"+Inf\",answer=\"forwarded\"} 2",
        "redirector_dns_upstream_seconds_count{upstream=\"192.0.2.53:53\"} 2",
        "redirector_problems{code=\"config_error\"} 7.0",
        "redirector_route_round_trip_seconds_total{source=\"a.internal\"} 0.25",
        "redirector_route_connect_seconds_total{source=\"a.internal\"} 1.5",
        "redirector_connect_seconds_bucket{le=\"0.25\"} 3",
        "redirector_connect_seconds_bucket{le=\"+Inf\"} 4",
        "redirector_connect_seconds_sum 0.5",
        "redirector_events_lost_total 3.0",
        "redirector_events_suppressed_total 5.0",
        "redirector_events_sampling_ratio 8.0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}

#[test]
fn interfaces_beyond_the_limit_share_one_label() {
    let page = page(Snapshot { guests: guests(MAX_INTERFACES + 3), ..snapshot(vec![]) });
    let flows = page.lines().filter(|line| line.starts_with("redirector_guest_flows_refused"));
    let flows: Vec<_> = flows.collect();
    assert_eq!(flows.len(), MAX_INTERFACES + 1);
    let others = format!("{{interface=\"{OTHER_INTERFACES}\"}} 3.0");
    assert!(flows.last().is_some_and(|line| line.ends_with(&others)), "{page}");
}

#[test]
fn routes_beyond_a_thousand_share_one_label() {
    let page = page(snapshot(
        (0..MAX_LABELLED + 20).map(|n| route(&format!("host{n}.internal"), 1)).collect(),
    ));
    let started: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("redirector_route_connects_started_total{"))
        .collect();
    assert_eq!(started.len(), MAX_LABELLED + 1);
    assert!(
        started.contains(&"redirector_route_connects_started_total{source=\"other routes\"} 20.0"),
        "{started:?}"
    );
    assert!(page.contains(&format!("redirector_routes {}.0", MAX_LABELLED + 20)));
}

#[tokio::test]
async fn a_silent_agent_is_counted_and_its_process_is_shown() {
    let (requests, mut received) = mpsc::channel::<oneshot::Sender<Snapshot>>(1);
    let metrics = Metrics::new(requests);
    tokio::spawn(async move {
        // Receives the request and drops it.
        while received.recv().await.is_some() {}
    });
    let page = metrics.scrape().await;
    assert!(
        page.contains("redirector_scrape_errors_total 1.0")
            && page.contains("process_resident_memory_bytes "),
        "{page}"
    );
    assert!(!page.contains("redirector_degraded"));
}

fn table() -> String {
    let row = |metric: &Metric| {
        let total = if metric.kind == Kind::Counter { "_total" } else { "" };
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = format!("{:?}", metric.kind).to_lowercase();
        format!("| `{}{total}` | {kind} | {} | {} |\n", metric.name, labels.join(", "), metric.help)
    };
    format!(
        "| metric | type | labels | meaning |\n|---|---|---|---|\n{}",
        METRICS.iter().map(row).collect::<String>()
    )
}

#[test]
fn the_reference_is_generated_from_the_table() {
    crate::test_support::assert_generated("metrics.md", &table());
}

/// Words in a text that have the form of our metrics' names.
fn metric_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("redirector_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn dashboard_and_alerts_name_only_existing_metrics() {
    let known: BTreeSet<String> = METRICS
        .iter()
        .flat_map(|metric| {
            metric.kind.suffixes().iter().map(|suffix| format!("{}{suffix}", metric.name))
        })
        .collect();
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../../../deploy/grafana-dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .filter_map(|target| target["expr"].as_str())
        .collect();
    assert!(queries.len() >= 10);
    let alerts: serde_json::Value =
        serde_yaml_ng::from_str(include_str!("../../../deploy/alerts.yaml")).expect("YAML");
    let rules: Vec<_> = alerts["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"))
        .collect();
    let expressions: Vec<&str> =
        rules.iter().map(|rule| rule["expr"].as_str().expect("an expression")).collect();
    for rule in &rules {
        assert!(
            rule["alert"].is_string()
                && rule["annotations"]["summary"].is_string()
                && rule["labels"]["severity"].is_string(),
            "{rule}"
        );
    }
    for query in queries.iter().chain(&expressions) {
        let metrics = metric_names(query);
        assert!(!metrics.is_empty() || query.contains("up{"), "{query}");
        assert!(metrics.is_subset(&known), "{query} names an unknown metric");
        let depth = query.chars().try_fold(0_i32, |depth, c| match c {
            '(' | '{' | '[' => Some(depth + 1),
            ')' | '}' | ']' => Some(depth - 1).filter(|depth| *depth >= 0),
            _ => Some(depth),
        });
        assert_eq!(depth, Some(0), "{query}");
    }
}
