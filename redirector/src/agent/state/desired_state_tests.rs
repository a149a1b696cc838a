use std::{net::IpAddr, time::Duration};

use super::*;
use crate::route::RawRoute;

const A: &str = "a.internal";

fn route(source: &str) -> Route {
    let raw = RawRoute {
        source: source.into(),
        destination: crate::route::RawDestination::One("lb.public".into()),
        ..RawRoute::default()
    };
    raw.try_into().expect("a route")
}

fn resolved(addresses: &[&str], freshness: Freshness) -> Resolved {
    let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    Resolved {
        addresses,
        left_out: vec![],
        rejected: vec![],
        freshness,
        resolved_at: jiff::Timestamp::UNIX_EPOCH,
        ttl: Duration::from_secs(30),
    }
}

fn unresolved() -> Resolved {
    resolved(&[], Freshness::Unresolved { error: Some("SERVFAIL".into()) })
}

fn planned(backends: Option<&[&str]>) -> PlannedRoute {
    let parse = |list: &[&str]| {
        list.iter().map(|text| text.parse::<IpAddr>().expect("an address")).collect()
    };
    PlannedRoute { ports: vec![], backends: backends.map(parse), ..PlannedRoute::default() }
}

/// The plan for the one route A, leased index 1.
fn plan_for(
    known: Option<Resolved>,
    kernel: Option<PlannedRoute>,
    held: bool,
    replaced: bool,
) -> Option<PlannedRoute> {
    let source: SourceName = A.parse().expect("a source");
    let inputs = Inputs {
        leases: &|_| Some(1),
        resolved: &|_| known.clone().map(Arc::new),
        kernel: &|index| kernel.clone().filter(|_| index == 1),
        is_held: &|_| held,
        replaced: &replaced.then_some(source).into_iter().collect(),
    };
    inputs.plan([&route(A)]).routes.remove(&1)
}

#[test]
fn known_addresses_are_planned_fresh_stale_or_literal() {
    for freshness in
        [Freshness::Literal, Freshness::Fresh, Freshness::Stale { error: "SERVFAIL".into() }]
    {
        let plan = plan_for(Some(resolved(&["203.0.113.7"], freshness)), None, false, false);
        assert_eq!(plan, Some(planned(Some(&["203.0.113.7"]))));
    }
}

#[test]
fn an_authoritative_empty_answer_empties_the_route() {
    let plan = plan_for(
        Some(resolved(&[], Freshness::Fresh)),
        Some(planned(Some(&["203.0.113.7"]))),
        false,
        false,
    );
    assert_eq!(plan, Some(planned(Some(&[]))));
}

#[test]
fn without_an_answer_after_a_restart_backends_are_kept() {
    let plan = plan_for(Some(unresolved()), Some(planned(Some(&["203.0.113.7"]))), false, false);
    assert_eq!(plan, Some(planned(None)));
}

#[test]
fn addresses_of_a_former_destination_are_removed() {
    let plan = plan_for(Some(unresolved()), Some(planned(Some(&["203.0.113.7"]))), false, true);
    assert_eq!(plan, Some(planned(Some(&[]))));
}

#[test]
fn an_unresolved_new_route_has_no_backends() {
    assert_eq!(plan_for(Some(unresolved()), None, false, false), Some(planned(Some(&[]))));
}

#[test]
fn a_held_route_keeps_its_current_plan() {
    let serving = planned(Some(&["203.0.113.7"]));
    assert_eq!(plan_for(Some(unresolved()), Some(serving.clone()), true, true), Some(serving));
    assert_eq!(plan_for(Some(unresolved()), None, true, false), None);
}

#[test]
fn dns_answers_only_what_the_kernel_contains() {
    let routes = [route("a.internal"), route("b.internal"), route("c.internal")];
    let leases = |source: &SourceName| match source.to_string().as_str() {
        "a.internal" => Some(1),
        "b.internal" => Some(2),
        _ => None,
    };
    let kernel = Plan { routes: [(1, planned(None)), (3, planned(None))].into() };
    let answers =
        answers(&routes, &leases, &|index| kernel.routes.contains_key(&index), &Pool::default());
    let names: Vec<_> = answers.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["a.internal"]);
    assert_eq!(answers.values().next().map(|vip| vip.v4), Some([198, 18, 0, 1].into()));
}
