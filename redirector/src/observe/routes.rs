//! What the metrics of routes say of one. A thousand routes have twenty thousand samples, so that these are written from the routes as they are, and
//! nothing is made for each.

use std::fmt;

use prometheus_client::encoding::MetricEncoder;

use super::{catalog::Metric, snapshot::RouteSample};

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
        Each("state", &[("eligible", |route| route.eligible as f64), ("set_aside", |route| route.set_aside as f64)]),
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
    ("redirector_route_connects_desperate", One(|route| route.desperate as f64)),
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

impl Says {
    /// Writes every route's samples; `put` writes one number.
    pub(super) fn write(
        &self,
        routes: &[RouteSample],
        family: &mut MetricEncoder<'_>,
        put: impl Fn(&mut MetricEncoder<'_>, f64) -> fmt::Result,
    ) -> fmt::Result {
        for route in routes {
            let source = ("source", &route.source[..]);
            match self {
                One(number) => put(&mut family.encode_family(&[source])?, number(route))?,
                Each(key, numbers) => {
                    for (value, number) in *numbers {
                        put(&mut family.encode_family(&[source, (key, value)])?, number(route))?;
                    }
                }
            }
        }
        Ok(())
    }
}
