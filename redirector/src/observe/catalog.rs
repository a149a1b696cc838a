//! Every metric, with its documentation: what is told, and docs/reference/metrics.md, follow from
//! this table.

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

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, help }
}

/// Every metric, in the order in which they are told.
pub const METRICS: &[Metric] = &[
    gauge("redirector_build_info", &["version"], "1, with the agent's version"),
    gauge("redirector_degraded", &[], "1 while something is amiss, as status says it"),
    gauge(
        "redirector_problems",
        &["code"],
        "Problems by code, as status lists them; absent while there is none",
    ),
    gauge("redirector_routes", &[], "Routes that are configured"),
    gauge("redirector_dns_names", &[], "Sources that DNS answers"),
    gauge("redirector_attached_cgroups", &[], "Cgroups that the programs are attached to"),
    gauge("redirector_pool_addresses", &[], "Virtual addresses that can be leased"),
    gauge("redirector_pool_addresses_leased", &[], "Virtual addresses that are leased"),
    gauge(
        "redirector_heartbeat_age_seconds",
        &[],
        "Time since the agent's last sign of life to the kernel; above 2 it counts as dead",
    ),
    gauge(
        "redirector_config_valid",
        &[],
        "1 while the configuration file's present content serves",
    ),
    gauge(
        "redirector_config_loaded_timestamp_seconds",
        &[],
        "When the configuration that serves was read, seconds since 1970",
    ),
    counter(
        "redirector_changes",
        &["kind"],
        "Changes of routes by commands, imports, rollbacks and reloads since the agent's start",
    ),
    histogram(
        "redirector_connect_seconds",
        &[],
        "Time from connect to established, of all routes, since the tables in the kernel were made",
    ),
    counter(
        "redirector_events",
        &[],
        "Events of single connects that were told since the agent's start",
    ),
    counter(
        "redirector_events_lost",
        &[],
        "Events that the full ring between kernel and agent did not take, since the tables were \
            made",
    ),
    gauge(
        "redirector_events_sampling_ratio",
        &[],
        "Of so many successes one is told; 1 unless there is pressure. Failures are all told",
    ),
    gauge(
        "redirector_route_live",
        &["source"],
        "1 while the kernel has the route and DNS answers it",
    ),
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
        "How they ended: established, refused, timed_out, unreachable, aborted, unsent; started is \
            their sum and what is in flight",
    ),
    counter(
        "redirector_route_connections_closed",
        &["source"],
        "Established connections that have ended",
    ),
    counter(
        "redirector_route_connects_denied",
        &["source"],
        "Connects refused here: an unlisted port, or no backend",
    ),
    counter(
        "redirector_route_connects_passed",
        &["source"],
        "Connects left alone since there was no backend (on_no_backend = \"pass\")",
    ),
    counter(
        "redirector_route_connects_all_ejected",
        &["source"],
        "Connects sent to a backend that is set aside, since all were",
    ),
    counter(
        "redirector_route_connect_seconds",
        &["source"],
        "Time from connect to established, summed over the established ones",
    ),
    counter(
        "redirector_route_round_trip_seconds",
        &["source"],
        "Smoothed round-trip times at the end of connections, summed over those that have ended",
    ),
    counter(
        "redirector_route_received_bytes",
        &["source"],
        "Bytes received on connections that have ended",
    ),
    counter(
        "redirector_route_sent_bytes",
        &["source"],
        "Bytes acknowledged on connections that have ended",
    ),
    counter(
        "redirector_route_dns_answers",
        &["source"],
        "DNS queries for the source that were answered with its virtual or real addresses, or with \
            none",
    ),
    counter("redirector_dns_queries", &[], "Queries received over UDP and TCP"),
    counter(
        "redirector_dns_questions",
        &["type"],
        "The same by what they ask for; rare types are `other`",
    ),
    counter(
        "redirector_dns_outcomes",
        &["outcome"],
        "What became of them: answered, nodata and pending by us, forwarded, servfail, formerr, \
            notimp, refused, rate_limited, dropped; queries is their sum",
    ),
    counter(
        "redirector_dns_incidents",
        &["incident"],
        "What else happened to queries: timeouts, overload, replies that did not fit, and such",
    ),
    counter(
        "redirector_dns_upstream_answers",
        &["code"],
        "Replies of upstreams that were passed on, by response code",
    ),
    histogram(
        "redirector_dns_seconds",
        &["answer"],
        "Time from a query to its answer: local, forwarded",
    ),
    gauge(
        "redirector_dns_upstream_up",
        &["upstream"],
        "1 while the upstream is asked; 0: it failed, and others are asked in its place",
    ),
    counter("redirector_dns_upstream_queries", &["upstream"], "Queries that the upstream was sent"),
    counter(
        "redirector_dns_upstream_failures",
        &["upstream"],
        "Queries that it did not answer within a second, or did not take",
    ),
    histogram("redirector_dns_upstream_seconds", &["upstream"], "How long its replies took"),
    gauge("redirector_dns_intercepting", &[], "1 while the DNS of executors is taken to the shim"),
    counter(
        "redirector_dns_intercepted",
        &[],
        "Connects and unconnected datagrams of executors to port 53 that were taken to the shim",
    ),
    counter(
        "redirector_dns_not_intercepted",
        &["reason"],
        "Those that were left alone: stale, since the agent gave no sign of life; crowded, since \
            too many resolvers were asked",
    ),
    counter(
        "redirector_scrape_errors",
        &[],
        "Readings that failed, in the kernel or of the agent, since its start",
    ),
    gauge("redirector_scrape_duration_seconds", &[], "How long reading took, this time"),
    counter("process_cpu_seconds", &[], "User and system time of the agent"),
    gauge("process_resident_memory_bytes", &[], "Resident memory of the agent"),
    gauge("process_virtual_memory_bytes", &[], "Virtual memory of the agent"),
    gauge("process_open_fds", &[], "Open file descriptors of the agent"),
    gauge("process_max_fds", &[], "How many it may open"),
    gauge("process_threads", &[], "Threads of the agent"),
    gauge("process_start_time_seconds", &[], "When the agent was started, seconds since 1970"),
];
