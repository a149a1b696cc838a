//! What the agent tells to a scrape.

use std::collections::BTreeMap;

use redirector_common::stats::{LATENCY_BUCKETS, latency_bound_ns};

use crate::{
    agent::{
        event_loop::Owner,
        views::{problems, route_view},
    },
    backend::Freshness,
    control::api::Problem,
    datapath::RouteStatus,
    dns::HistogramSnapshot,
    observe::{RouteSample, RouteSamples, Snapshot},
    route::EffectiveRoute,
};

/// Routes that are read at once: so many take few calls and little memory.
const TOGETHER: usize = 4096;

/// Everything that metrics are made of, read now.
pub(crate) fn snapshot(owner: &Owner) -> Snapshot {
    let mut read = Read::default();
    read.take(problems::of_agent(owner));
    read.routes(owner);
    let publisher = owner.live.publisher.as_ref();
    let pool = owner.live.pool.usable();
    let events = owner.events_info();
    let interception = owner.live.datapath.interception().unwrap_or_default();
    Snapshot {
        errors: read.errors,
        connects: read.connects.told(),
        events: [events.emitted, events.lost, events.sampling_ratio.into()],
        routes: read.samples,
        problems: read.problems,
        degraded: read.degraded,
        dns: publisher.map(|publisher| publisher.counters().into()).unwrap_or_default(),
        dns_stats: publisher.map(|publisher| publisher.query_stats()).unwrap_or_default(),
        upstreams: publisher.map(|publisher| publisher.upstreams()).unwrap_or_default(),
        intercepting: owner.interception.now.is_ok(),
        intercepted: [
            interception.resolvers.iter().map(|at| at.intercepted).sum::<u64>()
                + interception.released,
            interception.heartbeat_stale,
            interception.slots_full,
        ],
        names: owner.live.published.len() as u64,
        cgroups: owner.attached.list.len() as u64,
        pool: [pool.len() as u64, owner.live.leases.iter().count() as u64],
        heartbeat_age: owner.beaten_at.elapsed().as_secs_f64(),
        config: (owner.config_error.is_none(), owner.loaded_at.as_millisecond() as f64 / 1000.0),
        changes: owner.changes.clone(),
    }
}

/// What is read of routes.
#[derive(Default)]
struct Read {
    samples: RouteSamples,
    connects: Connects,
    problems: BTreeMap<String, u64>,
    degraded: bool,
    errors: u64,
}

impl Read {
    fn take(&mut self, problems: Vec<Problem>) {
        for problem in problems {
            self.degraded |= problem.degrades;
            *self.problems.entry(problem.code).or_default() += 1;
        }
    }

    /// Every route, in the order of virtual addresses.
    fn routes(&mut self, owner: &Owner) {
        let answered = owner.live.publisher.as_ref().map(|publisher| publisher.answer_counts());
        let mut routes: Vec<(u32, EffectiveRoute<'_>)> = owner
            .live
            .routes
            .iter()
            .filter_map(|entry| Some((owner.live.leases.get(&entry.route.source)?, entry)))
            .collect();
        routes.sort_unstable_by_key(|(index, _)| *index);
        for routes in routes.chunks(TOGETHER) {
            let indices: Vec<u32> = routes.iter().map(|(index, _)| *index).collect();
            let mut told = owner.live.datapath.routes(&indices).unwrap_or_default().into_iter();
            for (_, entry) in routes {
                let answered =
                    answered.as_ref().map_or(0, |answered| answered(&entry.route.source));
                self.route(owner, *entry, told.next(), answered);
            }
        }
    }

    fn route(
        &mut self,
        owner: &Owner,
        entry: EffectiveRoute<'_>,
        told: Option<RouteStatus>,
        dns_answers: u64,
    ) {
        let source = &entry.route.source;
        let live = owner.live.serves(source);
        let resolved = owner.live.follower.current().get(source).cloned();
        let fresh = resolved.is_some_and(|resolved| {
            matches!(resolved.freshness, Freshness::Literal | Freshness::Fresh)
        });
        self.errors += u64::from(live && told.is_none());
        let readable = told.is_some();
        let RouteStatus { counters: c, backends } = told.unwrap_or_default();
        let set_aside = backends.iter().filter(|backend| backend.ejected.is_some()).count() as u64;
        self.connects.add(c.connect_ns, &c.latency);
        self.samples.push(RouteSample {
            source: source.to_string(),
            live,
            fresh,
            eligible: backends.len() as u64 - set_aside,
            set_aside,
            started: c.started,
            ended: [c.established, c.refused, c.timed_out, c.unreachable, c.aborted, c.unsent],
            closed: c.closed,
            denied: c.denied,
            passed: c.passed,
            desperate: c.desperate,
            connect_ns: c.connect_ns,
            srtt_us: c.srtt_us,
            rx_bytes: c.rx_bytes,
            tx_bytes: c.tx_bytes,
            dns_answers,
        });
        // Most routes have no problem, and a view is dear.
        let well = fresh
            && set_aside == 0
            && !backends.is_empty()
            && entry.route.source_ips.is_empty()
            && c.source_failed == 0;
        if !well {
            let told = readable.then_some(RouteStatus { counters: c, backends });
            self.take(problems::of_view(&route_view::view(owner, entry, told)));
        }
    }
}

/// How long connects took to be established, of all routes together: told by route it would be most
/// of the page.
#[derive(Default)]
struct Connects {
    ns: u64,
    classes: [u64; LATENCY_BUCKETS],
}

impl Connects {
    fn add(&mut self, ns: u64, classes: &[u64; LATENCY_BUCKETS]) {
        self.ns += ns;
        for (all, route) in self.classes.iter_mut().zip(classes) {
            *all += route;
        }
    }

    fn told(&self) -> HistogramSnapshot {
        let bound = |bucket| latency_bound_ns(bucket).map_or(f64::INFINITY, |ns| ns as f64 / 1e9);
        HistogramSnapshot {
            sum_seconds: self.ns as f64 / 1e9,
            buckets: (0..).map(bound).zip(self.classes).collect(),
        }
    }
}
