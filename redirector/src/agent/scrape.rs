//! What the agent tells to a scrape.

use std::collections::BTreeMap;

use redirector_common::stats::{LATENCY_BUCKETS, latency_bound_ns};

use super::{owner::Owner, problems, view};
use crate::{
    control::api::{BackendState, Counters, ResolutionState, RouteView},
    dns::Latency,
    observe::{RouteSample, Snapshot},
    route::SourceName,
};

/// Everything that metrics are made of, read now.
pub(super) fn snapshot(owner: &Owner) -> Snapshot {
    let publisher = owner.live.publisher.as_ref();
    let answered = publisher.map(|publisher| publisher.answered()).unwrap_or_default();
    let mut views = view::routes(owner);
    views.sort_by_key(|view| view.vip.index);
    let mut problems = BTreeMap::new();
    let mut degraded = false;
    for problem in problems::of_agent(owner).into_iter().chain(views.iter().flat_map(problems::of_view)) {
        degraded |= problem.degrades;
        *problems.entry(problem.code).or_default() += 1;
    }
    let pool = owner.live.pool.usable();
    let events = owner.events_info();
    let interception = owner.live.datapath.interception().unwrap_or_default();
    Snapshot {
        errors: views.iter().filter(|view| view.live && view.counters.is_none()).count() as u64,
        connects: connects(views.iter().filter_map(|view| view.counters)),
        events: [events.told, events.lost, events.one_in.into()],
        routes: views.into_iter().map(|view| sample(view, &answered)).collect(),
        problems,
        degraded,
        dns: publisher
            .and_then(|publisher| serde_json::from_value(serde_json::to_value(publisher.counters()).ok()?).ok())
            .unwrap_or_default(),
        tally: publisher.map(|publisher| publisher.tally()).unwrap_or_default(),
        upstreams: publisher.map(|publisher| publisher.upstreams()).unwrap_or_default(),
        intercepting: owner.interception.now.is_ok(),
        intercepted: [
            interception.resolvers.iter().map(|at| at.taken).sum::<u64>() + interception.forgotten,
            interception.stale,
            interception.crowded,
        ],
        names: owner.live.published.len() as u64,
        cgroups: owner.attached.list.len() as u64,
        pool: [pool.len() as u64, owner.live.leases.iter().count() as u64],
        heartbeat_age: owner.beaten_at.elapsed().as_secs_f64(),
        config: (owner.config_error.is_none(), owner.loaded_at.as_millisecond() as f64 / 1000.0),
        changes: owner.changes.clone(),
    }
}

/// How long connects took to be established, of all routes together: told by route it would be most of the page.
fn connects(counters: impl Iterator<Item = Counters>) -> Latency {
    let bound = |bucket| latency_bound_ns(bucket).map_or(f64::INFINITY, |ns| ns as f64 / 1e9);
    let mut all = Latency { seconds: 0.0, classes: (0..LATENCY_BUCKETS).map(|bucket| (bound(bucket), 0)).collect() };
    for route in counters {
        all.seconds += route.connect_ns as f64 / 1e9;
        for (class, count) in all.classes.iter_mut().zip(route.latency) {
            class.1 += count;
        }
    }
    all
}

fn sample(view: RouteView, answered: &BTreeMap<SourceName, u64>) -> RouteSample {
    let answers = view.source.as_ref().and_then(|source| answered.get(source)).copied().unwrap_or_default();
    let c: Counters = view.counters.unwrap_or_default();
    let aside = view.backends.iter().filter(|backend| backend.state == BackendState::SetAside).count() as u64;
    let fresh = |state| matches!(state, ResolutionState::Fixed | ResolutionState::Fresh);
    RouteSample {
        source: view.source.map(|source| source.to_string()).unwrap_or_default(),
        live: view.live,
        fresh: view.resolution.is_some_and(|resolution| fresh(resolution.state)),
        backends: [view.backends.len() as u64 - aside, aside],
        counters: vec![
            ("redirector_route_connects_started", c.started as f64),
            ("redirector_route_connections_closed", c.closed as f64),
            ("redirector_route_connects_denied", c.denied as f64),
            ("redirector_route_connects_passed", c.passed as f64),
            ("redirector_route_connects_desperate", c.desperate as f64),
            ("redirector_route_connect_seconds", c.connect_ns as f64 / 1e9),
            ("redirector_route_round_trip_seconds", c.srtt_us as f64 / 1e6),
            ("redirector_route_received_bytes", c.rx_bytes as f64),
            ("redirector_route_sent_bytes", c.tx_bytes as f64),
            ("redirector_route_dns_answers", answers as f64),
        ],
        ended: [
            ("established", c.established),
            ("refused", c.refused),
            ("timed_out", c.timed_out),
            ("unreachable", c.unreachable),
            ("aborted", c.aborted),
            ("unsent", c.unsent),
        ],
    }
}
