//! The metrics of routes, and their text. A thousand routes have twenty thousand samples, which are
//! written straight into the page: through the library's encoder each takes five times as long, and
//! a scrape is mostly that.

use std::fmt::Write as _;

use super::{
    catalog::{Kind, Metric},
    snapshot::RouteSample,
};

type ValueOf = fn(&RouteSample) -> f64;

/// The samples of a metric for one route.
pub(super) enum RouteValues {
    /// One value.
    One(ValueOf),
    /// One value for each value of a second label.
    Labelled(&'static str, &'static [(&'static str, ValueOf)]),
    /// 1 for each ejection.
    Ejections,
}

use RouteValues::{Ejections, Labelled, One};

/// By the metric's name.
const ROUTE_METRICS: &[(&str, RouteValues)] = &[
    ("redirector_route_live", One(|route| route.live.into())),
    ("redirector_route_destination_fresh", One(|route| route.fresh.into())),
    (
        "redirector_route_backends",
        Labelled(
            "state",
            &[
                ("eligible", |route| route.eligible as f64),
                ("ejected", |route| route.ejected as f64),
            ],
        ),
    ),
    ("redirector_backend_ejected", Ejections),
    ("redirector_route_connects_started", One(|route| route.counters.started as f64)),
    (
        "redirector_route_connects_ended",
        Labelled(
            "result",
            &[
                ("established", |route| route.counters.established as f64),
                ("refused", |route| route.counters.refused as f64),
                ("timed_out", |route| route.counters.timed_out as f64),
                ("unreachable", |route| route.counters.unreachable as f64),
                ("aborted", |route| route.counters.aborted as f64),
                ("unsent", |route| route.counters.unsent as f64),
            ],
        ),
    ),
    ("redirector_route_connections_closed", One(|route| route.counters.closed as f64)),
    ("redirector_route_connections_reset", One(|route| route.counters.reset as f64)),
    ("redirector_route_connects_denied", One(|route| route.counters.denied as f64)),
    ("redirector_route_connects_passed", One(|route| route.counters.passed as f64)),
    ("redirector_route_connects_all_ejected", One(|route| route.counters.all_ejected as f64)),
    ("redirector_route_connect_seconds", One(|route| route.counters.connect_ns as f64 / 1e9)),
    ("redirector_route_round_trip_seconds", One(|route| route.counters.srtt_us as f64 / 1e6)),
    ("redirector_route_received_bytes", One(|route| route.counters.rx_bytes as f64)),
    ("redirector_route_sent_bytes", One(|route| route.counters.tx_bytes as f64)),
    (
        "redirector_route_dns_answers",
        Labelled(
            "by",
            &[
                ("shim", |route| route.dns_answers as f64),
                ("packet", |route| route.packet_answers as f64),
            ],
        ),
    ),
];

/// The samples of a metric for one route; none if it is not a metric of routes.
pub(super) fn values_of(metric: &Metric) -> Option<&'static RouteValues> {
    ROUTE_METRICS.iter().find(|(name, _)| *name == metric.name).map(|(_, values)| values)
}

/// Writes the family of a metric in OpenMetrics; nothing without routes.
pub(super) fn write(
    page: &mut String,
    metric: &Metric,
    values: &RouteValues,
    routes: &[RouteSample],
) {
    if routes.is_empty() {
        return;
    }
    let (kind, suffix) =
        if metric.kind == Kind::Counter { ("counter", "_total") } else { ("gauge", "") };
    let name = metric.name;
    page.extend(["# HELP ", name, " ", metric.help, "\n# TYPE ", name, " ", kind, "\n"]);
    for route in routes {
        // A source contains no character that would need escaping.
        let mut sample = |labels: &[&str], value: f64| {
            page.extend([name, suffix, "{source=\"", &route.source, "\""]);
            page.extend(labels.iter().copied());
            page.push_str("} ");
            write_number(page, value);
            page.push('\n');
        };
        match values {
            One(value_of) => sample(&[], value_of(route)),
            Labelled(key, values) => values.iter().for_each(|(label, value_of)| {
                sample(&[",", key, "=\"", label, "\""], value_of(route))
            }),
            Ejections => route.ejections.iter().for_each(|ejection| {
                let backend = ejection.backend.to_string();
                let client = escaped(&ejection.client);
                let labels = [",backend=\"", &backend, "\",client=\"", &client, "\""];
                sample(&labels, 1.0);
            }),
        }
    }
}

/// The value of a label, as OpenMetrics has it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Formats a number as the library does; zero and other whole numbers, which most are, faster.
fn write_number(page: &mut String, value: f64) {
    // Whole numbers up to this are exact.
    const MAX_EXACT: f64 = (1_u64 << 53) as f64;
    if value == 0.0 {
        page.push_str("0.0");
    } else if value.fract() == 0.0 && (0.0..MAX_EXACT).contains(&value) {
        write!(page, "{}.0", value as u64).expect("writing to a string never fails");
    } else {
        write!(page, "{value:?}").expect("writing to a string never fails");
    }
}
