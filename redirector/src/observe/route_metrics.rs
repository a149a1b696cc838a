//! What the metrics of routes say of one, and their text. A thousand routes have twenty thousand
//! samples, which are written straight into the page: by way of the library's encoder each takes
//! five times as long, and a scrape is mostly that.

use std::fmt::Write as _;

use super::{
    catalog::{Kind, Metric},
    snapshot::RouteSample,
};

type Number = fn(&RouteSample) -> f64;

/// What a metric says of a route.
pub(super) enum Says {
    /// One number.
    One(Number),
    /// One for each value of a second label.
    Each(&'static str, &'static [(&'static str, Number)]),
}

use Says::{Each, One};

/// By the metric's name.
const METRICS: &[(&str, Says)] = &[
    ("redirector_route_live", One(|route| route.live.into())),
    ("redirector_route_destination_fresh", One(|route| route.fresh.into())),
    (
        "redirector_route_backends",
        Each(
            "state",
            &[
                ("eligible", |route| route.eligible as f64),
                ("ejected", |route| route.set_aside as f64),
            ],
        ),
    ),
    ("redirector_route_connects_started", One(|route| route.started as f64)),
    (
        "redirector_route_connects_ended",
        Each(
            "result",
            &[
                ("established", |route| route.ended[0] as f64),
                ("refused", |route| route.ended[1] as f64),
                ("timed_out", |route| route.ended[2] as f64),
                ("unreachable", |route| route.ended[3] as f64),
                ("aborted", |route| route.ended[4] as f64),
                ("unsent", |route| route.ended[5] as f64),
            ],
        ),
    ),
    ("redirector_route_connections_closed", One(|route| route.closed as f64)),
    ("redirector_route_connects_denied", One(|route| route.denied as f64)),
    ("redirector_route_connects_passed", One(|route| route.passed as f64)),
    ("redirector_route_connects_all_ejected", One(|route| route.desperate as f64)),
    ("redirector_route_connect_seconds", One(|route| route.connect_ns as f64 / 1e9)),
    ("redirector_route_round_trip_seconds", One(|route| route.srtt_us as f64 / 1e6)),
    ("redirector_route_received_bytes", One(|route| route.rx_bytes as f64)),
    ("redirector_route_sent_bytes", One(|route| route.tx_bytes as f64)),
    ("redirector_route_dns_answers", One(|route| route.dns_answers as f64)),
];

/// What this metric says of a route; nothing when it is none of routes.
pub(super) fn says(metric: &Metric) -> Option<&'static Says> {
    METRICS.iter().find(|(name, _)| *name == metric.name).map(|(_, says)| says)
}

/// Writes the family of a metric as OpenMetrics has it; nothing without routes.
pub(super) fn write(page: &mut String, metric: &Metric, says: &Says, routes: &[RouteSample]) {
    if routes.is_empty() {
        return;
    }
    let (kind, suffix) =
        if metric.kind == Kind::Counter { ("counter", "_total") } else { ("gauge", "") };
    let name = metric.name;
    page.extend(["# HELP ", name, " ", metric.help, "\n# TYPE ", name, " ", kind, "\n"]);
    for route in routes {
        // A source has no character that would have to be escaped.
        let mut sample = |labels: &[&str], value: f64| {
            page.extend([name, suffix, "{source=\"", &route.source, "\""]);
            page.extend(labels.iter().copied());
            page.push_str("} ");
            write_number(page, value);
            page.push('\n');
        };
        match says {
            One(number) => sample(&[], number(route)),
            Each(key, numbers) => numbers
                .iter()
                .for_each(|(value, number)| sample(&[",", key, "=\"", value, "\""], number(route))),
        }
    }
}

/// As the library writes numbers; most are zero or another whole one, and those are quicker written
/// as such.
fn write_number(page: &mut String, value: f64) {
    // Whole numbers up to this are exact.
    const EXACT: f64 = (1_u64 << 53) as f64;
    if value == 0.0 {
        page.push_str("0.0");
    } else if value.fract() == 0.0 && (0.0..EXACT).contains(&value) {
        write!(page, "{}.0", value as u64).expect("a string takes everything");
    } else {
        write!(page, "{value:?}").expect("a string takes everything");
    }
}
