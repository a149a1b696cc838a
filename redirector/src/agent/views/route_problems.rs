//! Problems of a route, each with its remedy.

use std::{
    cell::LazyCell,
    net::{IpAddr, SocketAddr},
};

use crate::{
    control::{
        api::{BackendState, BackendView, Problem, ProblemCode, ResolutionState, RouteView},
        count,
    },
    host,
    net::SearchList,
    route::MAX_BACKENDS,
};

/// This host's search list: read once, and only if a wildcard needs it.
pub(crate) type HostSearchList = LazyCell<SearchList>;

/// Problems of a route.
pub(crate) fn of_route(route: &RouteView, search: &HostSearchList) -> Vec<Problem> {
    let problems = destination(route)
        .into_iter()
        .chain(family(route, host::has_route))
        .chain(unused_addresses(route))
        .chain(source_ips(route))
        .chain(search_suffix(route, search))
        .chain(backends(route))
        .chain(clients(route));
    problems.map(|problem| problem.of_source(route.source.clone())).collect()
}

fn name(route: &RouteView) -> String {
    route.source.as_ref().map_or_else(|| "a route".to_owned(), ToString::to_string)
}

fn destination(route: &RouteView) -> Option<Problem> {
    let resolution = route.resolution.as_ref()?;
    let destination = route
        .definition
        .as_ref()
        .map_or_else(|| "the destination".to_owned(), |raw| raw.destination.to_string());
    let (name, error) = (name(route), resolution.error.as_deref().unwrap_or("no answer yet"));
    match (resolution.state, route.backends.len()) {
        (ResolutionState::Unresolved, backends) => {
            let in_use = match backends {
                0 => "no backend is known".to_owned(),
                many => format!("the kernel keeps the last {}", addresses(many)),
            };
            let message = format!(
                "{destination}, the destination of {name}, does not resolve: {error}; {in_use}"
            );
            Some(Problem::new(ProblemCode::Unresolved, message).with_remedy(
                "check the name and the resolver in use (the route's resolver, or dns.upstreams)",
            ))
        }
        (_, 0) => {
            let message = format!("{destination}, the destination of {name}, has no address");
            Some(
                Problem::new(ProblemCode::NoBackends, message)
                    .with_remedy("check the name's A records"),
            )
        }
        (ResolutionState::Stale, backends) => {
            let message =
                format!("keeping the last {} of {destination}: {error}", addresses(backends));
            Some(Problem::new(ProblemCode::StaleAddresses, message).without_degrading())
        }
        (ResolutionState::Literal | ResolutionState::Fresh, _) => None,
    }
}

/// Backends that no executor can connect to.
fn family(route: &RouteView, has_route: impl Fn(IpAddr) -> bool) -> Option<Problem> {
    let (name, first) = (name(route), route.backends.first()?.address);
    if route.lacks_usable_family() {
        let message = format!(
            "{name} leads to IPv6 addresses only ({first}), and executors reach it over IPv4 only: \
                there is no pool.ipv6"
        );
        return Some(Problem::new(ProblemCode::UnusableFamily, message).with_remedy(
            "set pool.ipv6 and restart the agent, or give the destination an IPv4 address",
        ));
    }
    let is_v6_only = route.backends.iter().all(|backend| backend.address.is_ipv6());
    (is_v6_only && !has_route(first)).then(|| {
        let message =
            format!("{name} leads to IPv6 addresses only, and this host has no route to {first}");
        Problem::new(ProblemCode::UnusableFamily, message)
            .with_remedy("give this host an IPv6 route, or the destination an IPv4 address")
    })
}

/// A search list that leads other names to a wildcard's route.
fn search_suffix(route: &RouteView, list: &HostSearchList) -> Option<Problem> {
    let source = route.source.as_ref().filter(|source| source.is_wildcard())?;
    let suffix = list.suffix_below(source)?;
    let other = if source.matches(&format!("www.example.org.{suffix}")) {
        "www.example.org"
    } else {
        "host"
    };
    let message = format!(
        "{source} also gets other names: this host's search list has {suffix}, with which a \
            resolver tries {other} as {other}.{suffix} (first, if it has fewer dots than \
            `options ndots`, {} here)",
        list.ndots
    );
    let problem = Problem::new(ProblemCode::SearchSuffix, message).with_remedy(
        "remove the suffix from /etc/resolv.conf and the jobs' search lists, or name the sources \
            instead of the wildcard",
    );
    Some(problem.without_degrading())
}

/// Addresses of the destination's name that the route does not use.
fn unused_addresses(route: &RouteView) -> Vec<Problem> {
    let Some(resolution) = &route.resolution else { return Vec::new() };
    let (name, mut problems) = (name(route), Vec::new());
    if !resolution.rejected.is_empty() {
        let list = resolution.rejected.iter();
        let list =
            some_of(list.map(|rejected| format!("{} ({})", rejected.address, rejected.reason)));
        let message = format!("the destination of {name} has addresses that are not used: {list}");
        let problem = Problem::new(ProblemCode::AddressesRejected, message)
            .with_remedy("remove them from the name's records, or correct the destination");
        problems.push(problem.without_degrading());
    }
    if !resolution.left_out.is_empty() {
        let list = some_of(resolution.left_out.iter().map(ToString::to_string));
        let message = format!(
            "the destination of {name} has more addresses than the {MAX_BACKENDS} that a route \
                takes: {list}"
        );
        problems.push(Problem::new(ProblemCode::AddressesLeftOut, message).without_degrading());
    }
    problems
}

/// The first items of a list, and how many there are besides.
fn some_of(items: impl ExactSizeIterator<Item = String>) -> String {
    const FEW: usize = 5;
    let more = items.len().saturating_sub(FEW);
    let mut list = items.take(FEW).collect::<Vec<_>>().join(", ");
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    list
}

fn source_ips(route: &RouteView) -> Vec<Problem> {
    let name = name(route);
    let source_ips = route.definition.iter().flat_map(|raw| raw.source_ips.iter().flatten());
    let missing = source_ips.filter(|text| text.parse().is_ok_and(|ip| !host::has_address(ip)));
    let problems: Vec<_> = missing
        .map(|text| {
            let message = format!("this host lacks {text}, a source address of {name}");
            Problem::new(ProblemCode::SourceIpMissing, message).with_remedy(
                "add it to this host, or correct source_ips; until then connects use the kernel's \
                    default source address",
            )
        })
        .collect();
    let failed = route.counters.map_or(0, |counters| counters.source_ip_failed);
    if !problems.is_empty() || failed == 0 {
        return problems;
    }
    let message = format!(
        "{failed} connects of {name} used the kernel's default source address: the caller's \
            network namespace lacks source_ips"
    );
    let problem = Problem::new(ProblemCode::SourceIpFailed, message).with_remedy(
        "none is needed where the host translates the pods' addresses; source_ips is meant for \
            host networking",
    );
    vec![problem.without_degrading()]
}

/// Backends that are ejected for single clients.
fn clients(route: &RouteView) -> Vec<Problem> {
    let name = name(route);
    let of_backend = |backend: &BackendView| {
        let address = backend.address;
        let clients = backend.ejections.iter().filter_map(|ejection| {
            Some((SocketAddr::new(address, ejection.port), ejection.client.clone()?, ejection))
        });
        clients
            .map(|(at, client, ejection)| {
                let failures = count(ejection.failures as usize, ejection.cause.noun());
                let message = format!(
                    "{at}, a backend of {name}, is ejected for {client} only, after {failures}"
                );
                Problem::new(ProblemCode::BackendEjected, message).without_degrading()
            })
            .collect::<Vec<_>>()
    };
    route.backends.iter().flat_map(of_backend).collect()
}

fn backends(route: &RouteView) -> Vec<Problem> {
    let name = name(route);
    let ejected: Vec<_> =
        route.backends.iter().filter(|backend| backend.state == BackendState::Ejected).collect();
    let failures = |backend: &BackendView| {
        count(backend.failures as usize, backend.cause.unwrap_or_default().noun())
    };
    if ejected.len() < route.backends.len() {
        let problem = |backend: &BackendView| {
            let message = format!(
                "{}, a backend of {name}, is ejected after {}",
                backend.address,
                failures(backend)
            );
            Problem::new(ProblemCode::BackendEjected, message).without_degrading()
        };
        return ejected.into_iter().map(problem).collect();
    }
    let message = match ejected.as_slice() {
        [] => return Vec::new(),
        [only] => format!(
            "{}, the only backend of {name}, is unhealthy ({}) but is still used: no other backend \
                is left",
            only.address,
            failures(only)
        ),
        all => {
            format!("all {} backends of {name} are unhealthy but are still used", all.len())
        }
    };
    let problem = Problem::new(ProblemCode::AllBackendsEjected, message).with_remedy(
        "is this node's egress address on the load balancer's allowlist? `redirector route show` \
            distinguishes refusals from timeouts",
    );
    vec![problem]
}

fn addresses(number: usize) -> String {
    if number == 1 { "address".to_owned() } else { format!("{number} addresses") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::api::{Counters, RejectedAddress, Resolution, VipView},
        datapath::EjectionCause,
    };

    fn route(state: ResolutionState, backends: &[u32]) -> RouteView {
        let backend = |(n, &failures): (usize, &u32)| BackendView {
            address: IpAddr::from([203, 0, 113, n as u8 + 1]),
            state: if failures > 0 { BackendState::Ejected } else { BackendState::Eligible },
            cause: (failures > 0).then_some(EjectionCause::Connect),
            failures,
            retry_in_ms: (failures > 0).then_some(500),
            ejections: vec![],
            counters: None,
        };
        RouteView {
            source: Some("a.internal".parse().expect("a source")),
            vip: VipView { index: 1, ipv4: Some([198, 18, 0, 1].into()), ipv6: None },
            origin: None,
            definition: None,
            live: true,
            resolution: Some(Resolution {
                state,
                error: Some("SERVFAIL".into()),
                resolved_at: None,
                ttl_seconds: None,
                rejected: vec![],
                left_out: vec![],
            }),
            backends: backends.iter().enumerate().map(backend).collect(),
            counters: None,
            answers: crate::control::api::AnswerCounts::default(),
        }
    }

    /// The messages of a route's problems, and whether each degrades.
    fn messages(state: ResolutionState, backends: &[u32]) -> Vec<(String, bool)> {
        of_route(&route(state, backends), &HostSearchList::default())
            .into_iter()
            .map(|problem| (problem.message, problem.degrades))
            .collect()
    }

    #[test]
    fn a_route_that_works_has_no_problem() {
        assert_eq!(messages(ResolutionState::Fresh, &[0, 0]), []);
        assert_eq!(messages(ResolutionState::Literal, &[0]), []);
    }

    #[test]
    fn a_search_suffix_below_a_wildcard_is_named() {
        let list =
            HostSearchList::new(|| SearchList::parse("search internal.net\noptions ndots:5\n"));
        let message = |source: &str| {
            let mut view = route(ResolutionState::Fresh, &[0]);
            view.source = Some(source.parse().expect("a source"));
            search_suffix(&view, &list).map(|problem| (problem.message, problem.degrades))
        };
        assert_eq!(
            message("**.internal.net").expect("a problem"),
            (
                "**.internal.net also gets other names: this host's search list has internal.net, \
                    with which a resolver tries www.example.org as www.example.org.internal.net \
                    (first, if it has fewer dots than `options ndots`, 5 here)"
                    .into(),
                false
            )
        );
        assert!(message("*.internal.net").expect("a problem").0.contains("tries host as"));
        assert_eq!((message("*.corp.example"), message("a.internal.net")), (None, None));
    }

    #[test]
    fn addresses_that_are_not_used_are_named() {
        let mut view = route(ResolutionState::Fresh, &[0]);
        let resolution = view.resolution.as_mut().expect("a resolution");
        let loopback = IpAddr::from([127, 0, 0, 1]);
        resolution.rejected =
            vec![RejectedAddress { address: loopback, reason: "loopback".into() }];
        resolution.left_out = (1..=7).map(|last| IpAddr::from([203, 0, 113, last])).collect();
        let problems = of_route(&view, &HostSearchList::default());
        assert_eq!(
            problems.iter().map(|p| (p.code, p.degrades, p.message.as_str())).collect::<Vec<_>>(),
            [
                (
                    ProblemCode::AddressesRejected,
                    false,
                    "the destination of a.internal has addresses that are not used: 127.0.0.1 \
                        (loopback)"
                ),
                (
                    ProblemCode::AddressesLeftOut,
                    false,
                    "the destination of a.internal has more addresses than the 64 that a route \
                        takes: 203.0.113.1, 203.0.113.2, 203.0.113.3, 203.0.113.4, 203.0.113.5 \
                        and 2 more"
                ),
            ]
        );
    }

    #[test]
    fn only_ipv6_behind_an_ipv4_address_degrades() {
        let mut view = route(ResolutionState::Fresh, &[0, 0]);
        let found = |view: &RouteView, has_route| {
            family(view, |_| has_route).map(|problem| (problem.code, problem.degrades))
        };
        let unusable = Some((ProblemCode::UnusableFamily, true));
        view.backends[0].address = "2001:db8::7".parse().expect("an address");
        assert_eq!(found(&view, false), None, "one of two is IPv4");
        view.backends[1].address = "2001:db8::8".parse().expect("an address");
        assert_eq!(found(&view, true), unusable);
        view.vip.ipv6 = Some("fd00::1".parse().expect("an address"));
        assert_eq!(found(&view, true), None);
        assert_eq!(found(&view, false), unusable);
    }

    #[test]
    fn a_source_address_that_this_host_lacks_is_a_problem() {
        let problems = |ips: &[&str], source_ip_failed| {
            let definition = crate::route::RawRoute {
                source_ips: Some(ips.iter().map(ToString::to_string).collect()),
                ..Default::default()
            };
            let view = RouteView {
                definition: Some(definition),
                counters: Some(Counters { source_ip_failed, ..Default::default() }),
                ..route(ResolutionState::Fresh, &[0])
            };
            of_route(&view, &HostSearchList::default())
                .into_iter()
                .map(|problem| (problem.code, problem.message, problem.degrades))
                .collect::<Vec<_>>()
        };
        assert_eq!(problems(&["127.0.0.1"], 0), []);
        let message = "this host lacks 192.0.2.77, a source address of a.internal".to_owned();
        assert_eq!(
            problems(&["127.0.0.1", "192.0.2.77"], 3),
            [(ProblemCode::SourceIpMissing, message, true)]
        );
        assert_eq!(problems(&["127.0.0.1"], 3)[0].0, ProblemCode::SourceIpFailed);
    }

    #[test]
    fn a_problem_degrades_only_when_connects_suffer() {
        let of = "the destination, the destination of a.internal";
        let first = |state, backends: &[u32]| messages(state, backends).remove(0);
        assert_eq!(
            first(ResolutionState::Stale, &[0, 0]),
            ("keeping the last 2 addresses of the destination: SERVFAIL".into(), false)
        );
        let unresolved = format!("{of}, does not resolve: SERVFAIL; no backend is known");
        assert_eq!(first(ResolutionState::Unresolved, &[]), (unresolved, true));
        let kept = format!("{of}, does not resolve: SERVFAIL; the kernel keeps the last address");
        assert_eq!(first(ResolutionState::Unresolved, &[0]), (kept, true));
        assert_eq!(first(ResolutionState::Fresh, &[]), (format!("{of}, has no address"), true));
        let one = "203.0.113.2, a backend of a.internal, is ejected after 3 failures";
        assert_eq!(messages(ResolutionState::Fresh, &[0, 3]), [(one.into(), false)]);
        let mut view = route(ResolutionState::Fresh, &[0, 3]);
        view.backends[1].cause = Some(EjectionCause::Reset);
        let resets = "203.0.113.2, a backend of a.internal, is ejected after 3 resets";
        assert_eq!(of_route(&view, &HostSearchList::default())[0].message, resets);
        let all = "all 2 backends of a.internal are unhealthy but are still used";
        assert_eq!(messages(ResolutionState::Fresh, &[1, 3]), [(all.into(), true)]);
        let only = "203.0.113.1, the only backend of a.internal, is unhealthy (1 failure) but is \
            still used: no other backend is left";
        assert_eq!(messages(ResolutionState::Literal, &[1]), [(only.into(), true)]);
    }
}
