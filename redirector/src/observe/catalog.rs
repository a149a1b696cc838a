//! Every metric, with its documentation. The page of metrics and docs/reference/metrics.md follow
//! from this table.

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, without `_total`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// Its help text.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only increases.
    Counter,
    /// A current value.
    Gauge,
    /// Durations by bucket, in seconds.
    Histogram,
}

impl Kind {
    /// The suffixes of its samples' names.
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

const DNS_OUTCOMES: &str = "Queries by outcome: answered, nodata and pending by the shim itself, \
    forwarded, servfail, formerr, notimp, refused, rate_limited, dropped; their sum is queries";

/// Every metric, in the order of the page.
pub const METRICS: &[Metric] = &[
    gauge("redirector_build_info", &["version"], "1, labelled with the agent's version"),
    gauge("redirector_degraded", &[], "1 if status is degraded"),
    gauge(
        "redirector_problems",
        &["code"],
        "Problems by code, as in status; absent while there is none",
    ),
    gauge("redirector_routes", &[], "Configured routes"),
    gauge("redirector_dns_names", &[], "Sources that DNS answers"),
    gauge("redirector_attached_cgroups", &[], "Cgroups that the programs are attached to"),
    gauge(
        "redirector_interfaces",
        &["state"],
        "Interfaces by what serves the packets that pass them: guests (names and connects), names \
            (names only), host (names of attached cgroups), failed (attaching failed), none",
    ),
    gauge(
        "redirector_source_ports",
        &["source", "backend"],
        "Source ports in use by sockets of the agent's network namespace towards backends, the 64 \
            largest numbers; absent while there is none",
    ),
    counter(
        "redirector_packets",
        &["event"],
        "What the packet programs did since the kernel maps were created: names answered, flows \
            moved to another backend, ports translated, flows refused and others",
    ),
    counter(
        "redirector_restored",
        &[],
        "What other processes had removed (programs, pins, the guard, files) and the agent \
            restored, since it started",
    ),
    gauge(
        "redirector_guest_flows",
        &["interface", "state"],
        "Connections of guests by interface and state: open, half_open (no answer to the SYN yet)",
    ),
    counter(
        "redirector_guest_flows_refused",
        &["interface"],
        "Connects of guests refused for want of room, since their interface was attached to",
    ),
    gauge("redirector_pool_addresses", &[], "Virtual addresses that can be leased"),
    gauge("redirector_pool_addresses_leased", &[], "Virtual addresses that are leased"),
    gauge(
        "redirector_heartbeat_age_seconds",
        &[],
        "Time since the agent's last heartbeat to the kernel; above 2 the agent counts as dead",
    ),
    gauge(
        "redirector_config_valid",
        &[],
        "1 if the present content of the configuration file is in force",
    ),
    gauge(
        "redirector_config_loaded_timestamp_seconds",
        &[],
        "When the configuration in force was read, in seconds since 1970",
    ),
    counter(
        "redirector_changes",
        &["kind"],
        "Route changes by commands, imports, rollbacks and reloads since the agent started",
    ),
    histogram(
        "redirector_connect_seconds",
        &[],
        "Time from connect to established, of all routes, since the kernel maps were created",
    ),
    counter("redirector_events", &[], "Connect events emitted since the agent started"),
    counter(
        "redirector_events_lost",
        &[],
        "Connect events lost because the ring buffer was full, since the kernel maps were created",
    ),
    counter(
        "redirector_events_suppressed",
        &[],
        "Events of failures left out since their cgroup or guest had too many, since the kernel \
            maps were created",
    ),
    gauge(
        "redirector_events_sampling_ratio",
        &[],
        "Sampling ratio for successful connects (1 = all)",
    ),
    gauge("redirector_route_live", &["source"], "1 if the kernel has the route and DNS answers it"),
    gauge(
        "redirector_route_destination_fresh",
        &["source"],
        "1 if the addresses are the resolver's last answer or literal, 0 if stale or unresolved",
    ),
    gauge(
        "redirector_route_backends",
        &["source", "state"],
        "Backends by state: eligible or ejected",
    ),
    gauge(
        "redirector_backend_ejected",
        &["source", "backend", "client"],
        "1 while a backend is ejected at its port, for all or for one client",
    ),
    counter("redirector_route_connects_started", &["source"], "Connects that were redirected"),
    counter(
        "redirector_route_connects_ended",
        &["source", "result"],
        "Redirected connects by outcome: established, refused, timed_out, unreachable, aborted, \
            unsent; their sum is started minus those in flight",
    ),
    counter(
        "redirector_route_connections_closed",
        &["source"],
        "Established connections that have ended",
    ),
    counter(
        "redirector_route_connections_reset",
        &["source"],
        "Established connections that the backend reset before a byte arrived",
    ),
    counter(
        "redirector_route_connects_denied",
        &["source"],
        "Connects refused on this host: the port is not listed, or there is no backend",
    ),
    counter(
        "redirector_route_connects_passed",
        &["source"],
        "Connects not redirected for lack of a backend (on_no_backend = \"pass\")",
    ),
    counter(
        "redirector_route_connects_all_ejected",
        &["source"],
        "Connects sent to an ejected backend because all backends were ejected",
    ),
    counter(
        "redirector_route_connect_seconds",
        &["source"],
        "Time from connect to established, summed over established connects",
    ),
    counter(
        "redirector_route_round_trip_seconds",
        &["source"],
        "Smoothed round-trip time at the end of connections, summed over closed connections",
    ),
    counter(
        "redirector_route_received_bytes",
        &["source"],
        "Bytes received on connections that have ended",
    ),
    counter(
        "redirector_route_sent_bytes",
        &["source"],
        "Bytes acknowledged by the peer on connections that have ended",
    ),
    counter(
        "redirector_route_dns_answers",
        &["source", "by"],
        "DNS queries for the source answered with its virtual or real addresses, or with no record",
    ),
    counter("redirector_dns_queries", &[], "Queries received over UDP and TCP"),
    counter(
        "redirector_dns_questions",
        &["type"],
        "Queries received by question type; rare types are `other`",
    ),
    counter("redirector_dns_outcomes", &["outcome"], DNS_OUTCOMES),
    counter(
        "redirector_dns_incidents",
        &["incident"],
        "Incidents during queries: timeouts, overload, mismatched replies and others",
    ),
    counter(
        "redirector_dns_upstream_answers",
        &["code"],
        "Upstream replies passed on, by response code",
    ),
    histogram(
        "redirector_dns_seconds",
        &["answer"],
        "Time from a query to its answer: local or forwarded",
    ),
    gauge(
        "redirector_dns_upstream_up",
        &["upstream"],
        "1 if the upstream is in use, 0 if it is ejected and others replace it",
    ),
    counter("redirector_dns_upstream_queries", &["upstream"], "Queries sent to the upstream"),
    counter(
        "redirector_dns_upstream_failures",
        &["upstream"],
        "Queries that the upstream did not answer within a second, or did not accept",
    ),
    histogram(
        "redirector_dns_upstream_seconds",
        &["upstream"],
        "Latency of the upstream's replies",
    ),
    gauge("redirector_dns_intercepting", &[], "1 if DNS of executors is intercepted"),
    counter(
        "redirector_dns_intercepted",
        &[],
        "With dns.intercept = \"sockets\": connects and datagrams that went to the shim",
    ),
    counter(
        "redirector_dns_not_intercepted",
        &["reason"],
        "Those that went to their resolver: heartbeat_stale (the agent's heartbeat was too old)",
    ),
    counter(
        "redirector_scrape_errors",
        &[],
        "Failed reads of the kernel or the agent since the agent started",
    ),
    counter(
        "redirector_log_lines_dropped",
        &[],
        "Lines of the agent's log that are missing, since standard error did not take them",
    ),
    gauge("redirector_scrape_duration_seconds", &[], "Duration of this scrape"),
    counter("process_cpu_seconds", &[], "User and system CPU time of the agent"),
    gauge("process_resident_memory_bytes", &[], "Resident memory of the agent"),
    gauge("process_virtual_memory_bytes", &[], "Virtual memory of the agent"),
    gauge("process_open_fds", &[], "Open file descriptors of the agent"),
    gauge("process_max_fds", &[], "Maximum number of open file descriptors of the agent"),
    gauge("process_threads", &[], "Threads of the agent"),
    gauge("process_start_time_seconds", &[], "Start time of the agent, in seconds since 1970"),
];
