//! What the status page shows: the numbers of the metrics, for a bounded number of routes.

use std::cmp::Reverse;

use serde::Serialize;

use super::snapshot::{OTHERS, RouteSample, Snapshot};
use crate::control::api::{AnswerCounts, BackendState, BackendView, Counters, Problem, VERSION};

/// Routes with a row of their own: those with a fault first, then those with most connects.
const MAX_ROUTES: usize = 200;
/// Backends of a route with a row of their own, the ejected ones first.
const MAX_BACKENDS: usize = 16;

/// `GET /status.json`.
#[derive(Debug, Serialize)]
pub(super) struct PageStatus {
    version: u32,
    at: jiff::Timestamp,
    host: String,
    agent_version: &'static str,
    state: PageState,
    /// Why the agent is not ready.
    reasons: Vec<String>,
    problems: Vec<Problem>,
    problem_count: u64,
    route_count: u64,
    cgroups: u64,
    names: u64,
    events: PageEvents,
    /// Of all routes.
    total: Totals,
    routes: Vec<PageRoute>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum PageState {
    Ok,
    Degraded,
    NotReady,
    /// The agent has not answered.
    Silent,
}

#[derive(Debug, Default, Serialize)]
struct PageEvents {
    lost: u64,
    suppressed: u64,
    sampling_ratio: u32,
}

#[derive(Debug, Default, Serialize)]
struct Totals {
    counters: Counters,
    answers: AnswerCounts,
}

#[derive(Debug, Serialize)]
struct PageRoute {
    source: String,
    live: bool,
    fresh: bool,
    eligible: u64,
    ejected: u64,
    counters: Counters,
    answers: AnswerCounts,
    backends: Vec<BackendView>,
}

impl PageStatus {
    /// Of these numbers, or of none if the agent does not answer.
    pub(super) fn new(snapshot: Option<Snapshot>, reasons: Vec<String>) -> Self {
        let state = match &snapshot {
            None => PageState::Silent,
            Some(_) if !reasons.is_empty() => PageState::NotReady,
            Some(snapshot) if snapshot.degraded => PageState::Degraded,
            Some(_) => PageState::Ok,
        };
        let snapshot = snapshot.unwrap_or_default();
        let total = Totals::of(snapshot.routes.as_slice());
        Self {
            version: VERSION,
            at: jiff::Timestamp::now(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            agent_version: env!("CARGO_PKG_VERSION"),
            state,
            reasons,
            problem_count: snapshot.problems.values().sum(),
            problems: snapshot.first_problems,
            route_count: snapshot.routes.number(),
            cgroups: snapshot.cgroups,
            names: snapshot.names,
            events: PageEvents {
                lost: snapshot.events.lost,
                suppressed: snapshot.events.suppressed,
                sampling_ratio: snapshot.events.sampling_ratio,
            },
            total,
            routes: first_routes(snapshot.routes.as_slice()),
        }
    }
}

impl Totals {
    fn of(routes: &[RouteSample]) -> Self {
        let mut total = Self::default();
        for route in routes {
            total.counters += route.counters;
            total.answers.packet += route.packet_answers;
            total.answers.shim += route.dns_answers;
        }
        total
    }
}

/// The routes that have rows, in the order of their names.
fn first_routes(routes: &[RouteSample]) -> Vec<PageRoute> {
    let mut routes: Vec<&RouteSample> =
        routes.iter().filter(|route| route.source != OTHERS).collect();
    if routes.len() > MAX_ROUTES {
        routes.sort_by_key(|route| (is_healthy(route), Reverse(route.counters.started)));
        routes.truncate(MAX_ROUTES);
    }
    routes.sort_by(|a, b| a.source.cmp(&b.source));
    routes.into_iter().map(PageRoute::new).collect()
}

fn is_healthy(route: &RouteSample) -> bool {
    route.live && route.fresh && route.eligible > 0 && route.ejected == 0
}

impl PageRoute {
    fn new(route: &RouteSample) -> Self {
        let mut backends: Vec<_> = route.backends.iter().collect();
        backends.sort_by_key(|backend| backend.state == BackendState::Eligible);
        Self {
            source: route.source.clone(),
            live: route.live,
            fresh: route.fresh,
            eligible: route.eligible,
            ejected: route.ejected,
            counters: route.counters,
            answers: AnswerCounts { packet: route.packet_answers, shim: route.dns_answers },
            backends: backends.into_iter().take(MAX_BACKENDS).cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::RouteSamples;

    #[test]
    fn the_page_has_bounded_rows_with_faults_first() {
        let mut routes = RouteSamples::default();
        for number in 0..5000_u64 {
            let backend = |last: u8| BackendView {
                address: [203, 0, 113, last].into(),
                state: if last == 63 { BackendState::Ejected } else { BackendState::Eligible },
                cause: None,
                failures: 0,
                retry_in_ms: None,
                ejections: vec![],
                counters: None,
            };
            routes.push(RouteSample {
                source: format!("r{number:04}.internal"),
                live: number != 17,
                fresh: true,
                eligible: 64,
                backends: (0..64).map(backend).collect(),
                counters: Counters { started: number, ..Counters::default() },
                ..RouteSample::default()
            });
        }
        let snapshot = Snapshot { routes, ..Snapshot::default() };
        let status = PageStatus::new(Some(snapshot), vec![]);
        assert_eq!((status.routes.len(), status.route_count), (MAX_ROUTES, 5000));
        let sources: Vec<_> = status.routes.iter().map(|route| route.source.as_str()).collect();
        assert!(sources.contains(&"r0017.internal"), "the one with a fault");
        assert!(sources.contains(&"r0999.internal") && !sources.contains(&"r0500.internal"));
        assert_eq!(status.routes[0].backends.len(), MAX_BACKENDS);
        assert_eq!(status.routes[0].backends[0].state, BackendState::Ejected);
        assert_eq!(status.total.counters.started, (0..5000).sum::<u64>(), "of all routes");
        let text = serde_json::to_string(&status).expect("JSON");
        assert!(text.len() < 2 << 20, "{} bytes", text.len());
        assert_eq!(PageStatus::new(None, vec![]).routes.len(), 0);
    }
}
