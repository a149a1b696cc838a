//! The numbers behind the metrics, read when they are scraped.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use redirector_common::stats::{LATENCY_BUCKETS, latency_bound_ns};

use crate::{
    agent::{
        process::logging,
        state::{agent_state::AgentState, reconciler::Reconciler},
        views::{
            agent_problems, packet_view,
            route_problems::{self, HostSearchList},
            route_view,
        },
    },
    control::api::{FlowsInfo, InterfaceInfo, Problem, ProblemCode, ServedBy},
    datapath::{BackendStatus, Ejection, RouteStatus, client_name},
    dns::HistogramSnapshot,
    net::SearchList,
    observe::{
        ConfigSample, EjectionSample, EventSamples, GuestSample, GuestSamples, PoolSample,
        RouteSample, RouteSamples, Snapshot,
    },
    route::EffectiveRoute,
};

/// Routes that are read from the kernel at once: many enough for few calls, and little memory.
const BATCH: usize = 4096;
/// Problems that the status page shows.
const FIRST_PROBLEMS: usize = 20;

/// Reads everything that the metrics show.
pub(crate) fn snapshot(state: &AgentState) -> Snapshot {
    let (reconciler, config) = (&state.reconciler, &state.config);
    let mut totals =
        Totals { search: HostSearchList::new(SearchList::of_host), ..Totals::default() };
    let packet = packet_view::packet(state);
    totals.add_problems(agent_problems::of_agent(state, &packet));
    totals.add_routes(reconciler);
    let publisher = reconciler.publisher();
    let events = state.events.info(&reconciler.datapath);
    let interception = reconciler.datapath.interception().unwrap_or_default();
    let intercepted: u64 = interception.resolvers.iter().map(|at| at.intercepted).sum();
    Snapshot {
        errors: totals.errors,
        connects: totals.latency.histogram(),
        events: EventSamples {
            emitted: events.emitted,
            lost: events.lost,
            suppressed: events.suppressed,
            sampling_ratio: events.sampling_ratio,
        },
        routes: totals.samples,
        problems: totals.problems,
        first_problems: totals.first_problems,
        degraded: totals.degraded,
        dns: publisher.map(|publisher| publisher.counters().into()).unwrap_or_default(),
        dns_stats: publisher.map(|publisher| publisher.query_stats()).unwrap_or_default(),
        upstreams: publisher.map(|publisher| publisher.upstreams()).unwrap_or_default(),
        is_intercepting: state.interception.disabled().is_none(),
        intercepted,
        bypassed: interception.heartbeat_stale,
        interfaces: interfaces(&packet.interfaces),
        guests: guests(&packet.interfaces),
        backends: totals.backends,
        source_ports: Vec::new(),
        packets: packet.counters,
        restored: state.healing().count(),
        names: reconciler.published_count() as u64,
        cgroups: state.attachments.attachments().len() as u64,
        pool: PoolSample {
            addresses: reconciler.pool().usable().len() as u64,
            leased: reconciler.leases.len() as u64,
        },
        heartbeat_age: state.heartbeat_at().elapsed().as_secs_f64(),
        config: ConfigSample {
            is_valid: config.error().is_none(),
            loaded_at: config.loaded_at().as_millisecond() as f64 / 1000.0,
        },
        changes: state.change_counts().clone(),
        dropped_log_lines: logging::dropped_lines(),
    }
}

/// The number of interfaces in each state; every state is there, so that none comes and goes.
fn interfaces(interfaces: &[InterfaceInfo]) -> BTreeMap<&'static str, u64> {
    let mut states: BTreeMap<_, _> =
        ["guests", "names", "host", "failed", "none"].map(|state| (state, 0)).into();
    for at in interfaces {
        let state = match (at.names, at.connects) {
            _ if at.failed => "failed",
            (ServedBy::Packet, ServedBy::Packet) => "guests",
            (ServedBy::Packet, ServedBy::Cgroup) => "host",
            (ServedBy::Packet, _) => "names",
            _ => "none",
        };
        *states.entry(state).or_default() += 1;
    }
    states
}

/// The flows of interfaces with guests, those that were attached to first with a label of their
/// own.
fn guests(interfaces: &[InterfaceInfo]) -> GuestSamples {
    let mut samples = GuestSamples::default();
    for at in interfaces {
        if let Some(FlowsInfo { open, half_open, refused, .. }) = at.flows {
            let name = at.name.clone().unwrap_or_else(|| at.index.to_string());
            samples.push(GuestSample { name, open, half_open, refused });
        }
    }
    samples
}

/// What is summed up over routes.
#[derive(Default)]
struct Totals {
    samples: RouteSamples,
    latency: LatencySum,
    problems: BTreeMap<ProblemCode, u64>,
    /// At most [`FIRST_PROBLEMS`], those that degrade the agent before others.
    first_problems: Vec<Problem>,
    degraded: bool,
    errors: u64,
    /// The addresses of all routes.
    backends: HashSet<IpAddr>,
    /// Of this host.
    search: HostSearchList,
}

impl Totals {
    fn add_problems(&mut self, problems: Vec<Problem>) {
        for problem in problems {
            self.degraded |= problem.degrades;
            *self.problems.entry(problem.code).or_default() += 1;
            self.keep(problem);
        }
    }

    fn keep(&mut self, problem: Problem) {
        let first = &mut self.first_problems;
        if first.len() < FIRST_PROBLEMS || problem.degrades {
            let at = first.partition_point(|earlier| earlier.degrades || !problem.degrades);
            first.insert(at, problem);
            first.truncate(FIRST_PROBLEMS);
        }
    }

    /// Every route, in the order of virtual addresses.
    fn add_routes(&mut self, reconciler: &Reconciler) {
        let answers = reconciler.publisher().map(|publisher| publisher.answer_counts());
        let indexed = |entry: EffectiveRoute<'_>| {
            let index = reconciler.leases.get(&entry.route.source)?;
            Some((index, entry.route.source.clone()))
        };
        let mut routes: Vec<_> = reconciler.routes.iter().filter_map(indexed).collect();
        routes.sort_unstable_by_key(|(index, _)| *index);
        for routes in routes.chunks(BATCH) {
            let indices: Vec<u32> = routes.iter().map(|(index, _)| *index).collect();
            let mut statuses = reconciler.datapath.routes(&indices).unwrap_or_default().into_iter();
            let packets = reconciler.datapath.answers_of(&indices).unwrap_or_default();
            let packets = packets.into_iter().chain(std::iter::repeat(0));
            for ((_, source), packets) in routes.iter().zip(packets) {
                let status = statuses.next();
                let Some(entry) = reconciler.routes.get(source) else { continue };
                let shim = answers.as_ref().map_or(0, |answers| answers(source));
                self.add_route(reconciler, entry, status, (shim, packets));
            }
        }
    }

    fn add_route(
        &mut self,
        reconciler: &Reconciler,
        entry: EffectiveRoute<'_>,
        status: Option<RouteStatus>,
        (dns_answers, packet_answers): (u64, u64),
    ) {
        let source = &entry.route.source;
        let live = reconciler.is_live(source);
        let resolved = reconciler.follower().resolved(source);
        let fresh = resolved.as_ref().is_some_and(|resolved| resolved.is_current());
        self.errors += u64::from(live && status.is_none());
        let is_readable = status.is_some();
        let status = status.unwrap_or_default();
        let backends = &status.backends;
        let ejected = backends.iter().filter(|backend| backend.ejected().is_some()).count() as u64;
        self.backends.extend(backends.iter().map(|backend| backend.address));
        let ejections = ejection_samples(backends);
        self.latency.add(&status);
        // Most routes have no problem, and building a view is expensive.
        let is_healthy = resolved.is_some_and(|resolved| resolved.is_unremarkable())
            && ejections.is_empty()
            && !backends.is_empty()
            && entry.route.source_ips.is_empty()
            && !(source.is_wildcard() && self.search.suffix_below(source).is_some())
            && status.counters.source_ip_failed == 0;
        let has_room = self.samples.has_room();
        let views = backends.iter().filter(|_| has_room).cloned().map(route_view::backend);
        self.samples.push(RouteSample {
            source: source.to_string(),
            backends: views.collect(),
            live,
            fresh,
            eligible: backends.len() as u64 - ejected,
            ejected,
            ejections,
            counters: status.counters,
            dns_answers,
            packet_answers,
        });
        if !is_healthy {
            let view = route_view::view(reconciler, entry, is_readable.then_some(status));
            self.add_problems(route_problems::of_route(&view, &self.search));
        }
    }
}

/// The time from connect to established of all routes; by route it would be most of the page.
#[derive(Default)]
struct LatencySum {
    ns: u64,
    buckets: [u64; LATENCY_BUCKETS],
}

impl LatencySum {
    fn add(&mut self, status: &RouteStatus) {
        self.ns += status.counters.connect_ns;
        for (sum, count) in self.buckets.iter_mut().zip(&status.counters.latency) {
            *sum += count;
        }
    }

    fn histogram(&self) -> HistogramSnapshot {
        let bound = |bucket| latency_bound_ns(bucket).map_or(f64::INFINITY, |ns| ns as f64 / 1e9);
        HistogramSnapshot {
            sum_seconds: self.ns as f64 / 1e9,
            buckets: (0..).map(bound).zip(self.buckets).collect(),
        }
    }
}

/// One sample for each ejection.
fn ejection_samples(backends: &[BackendStatus]) -> Vec<EjectionSample> {
    let of_backend = |backend: &BackendStatus| {
        let address = backend.address;
        let sample = move |ejection: &Ejection| EjectionSample {
            backend: std::net::SocketAddr::new(address, ejection.port),
            client: ejection.client.map_or_else(|| "all".to_owned(), client_name),
        };
        backend.ejections.iter().map(sample).collect::<Vec<_>>()
    };
    backends.iter().flat_map(of_backend).collect()
}
