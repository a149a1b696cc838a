//! What is amiss, each with its remedy; the worst first.

use crate::{
    agent::{event_loop::Owner, views::route_view},
    control::{
        api::{BackendState, BackendView, Problem, ResolutionState, RouteView},
        count,
    },
    dns::Publisher,
    host,
    route::SourceName,
};

/// Everything that is amiss.
pub(crate) fn all(owner: &Owner) -> Vec<Problem> {
    let mut problems = of_agent(owner);
    problems.extend(route_view::routes(owner).iter().flat_map(of_view));
    problems.sort_by_key(|problem| !problem.degrades);
    problems
}

/// What is amiss with one route.
pub(crate) fn of_route(owner: &Owner, source: &SourceName) -> Vec<Problem> {
    route_view::route(owner, source).as_ref().map(of_view).unwrap_or_default()
}

/// A problem of the agent or the datapath as a whole.
pub(crate) fn general(
    code: &str,
    message: String,
    remedy: impl Into<Option<&'static str>>,
) -> Problem {
    Problem {
        code: code.to_owned(),
        source: None,
        message,
        remedy: remedy.into().map(str::to_owned),
        degrades: true,
    }
}

/// What is amiss with the agent or the datapath as a whole.
pub(crate) fn of_agent(owner: &Owner) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut note = |code: &str, message: String, remedy: Option<&'static str>| {
        problems.push(general(code, message, remedy))
    };
    if let Some(refused) = &owner.live.refused {
        note(
            "kernel_update_failed",
            format!("the kernel did not take a change of the routes: {refused}"),
            Some("the agent goes on trying"),
        );
    }
    if let Some(error) = &owner.attached.error {
        note(
            "not_attached",
            format!("attaching failed: {error}"),
            Some("the agent goes on trying; `redirector check` tells what this host lacks"),
        );
    } else if owner.attached.list.is_empty() && owner.attached.waiting.is_empty() {
        let remedy =
            "set attach.cgroups, or start a container: the agent attaches when its cgroup appears";
        note(
            "not_attached",
            "no cgroup matches attach.cgroups, so nothing is redirected".into(),
            Some(remedy),
        );
    }
    for why in told_waits(&owner.attached.waiting) {
        let remedy = "the agent goes on trying, and redirects for the other cgroups meanwhile";
        note("not_attached", format!("attaching failed: {why}"), Some(remedy));
    }
    if let Some(error) = &owner.config_error {
        let message = format!(
            "the configuration file is wrong, and what it said before is still in use:\n{error}"
        );
        note(
            "config_error",
            message,
            Some("correct it; `redirector config check` reports all problems"),
        );
    }
    if let Some(problem) =
        owner.live.publisher.as_ref().and_then(|publisher| publisher.upstream_problem())
    {
        let remedy = "set dns.upstreams to servers that this host can reach";
        note(
            "dns_failed",
            format!("names that are not ours can't be forwarded: {problem}"),
            Some(remedy),
        );
    }
    for looping in
        owner.live.publisher.iter().flat_map(Publisher::upstreams).filter(|upstream| upstream.loops)
    {
        let remedy = "let it ask the real server, or name that in dns.upstreams; the agent looks \
            again every few seconds";
        note(
            "dns_loop",
            format!("{}, a DNS upstream, asks us in turn; it is set aside", looping.address),
            Some(remedy),
        );
    }
    if let Err(why) = owner.interception.now.as_ref()
        && !why.wanted
    {
        let remedy = "remove the cause and restart the agent, or set dns.intercept = \"off\" and \
            make the shim the executors' nameserver";
        note(
            "not_intercepted",
            format!("the DNS of executors is not intercepted: {}", why.reason),
            Some(remedy),
        );
    }
    for resolver in owner.interception.unserved(&owner.at_start.dns.intercept) {
        let remedy = "add an address of its family to dns.listen";
        note(
            "not_intercepted",
            format!("dns.intercept has {resolver}, and no address in dns.listen can answer for it"),
            Some(remedy),
        );
    }
    let upstreams = owner.live.publisher.iter().flat_map(Publisher::upstreams);
    if let Some(resolver) =
        owner.interception.out_of_family(upstreams.map(|upstream| upstream.address.ip()))
    {
        let message = format!(
            "this host's nameserver {resolver} is likely its executors', and no address in \
                dns.listen can answer for it: its DNS is left alone"
        );
        let remedy = "add an IPv6 address that executors reach to dns.listen (the agent puts it on \
            lo when the host lacks it)";
        problems
            .push(Problem { degrades: false, ..general("not_intercepted", message, Some(remedy)) });
    }
    if !owner.restart_needed.is_empty() {
        let message = format!(
            "new values of {} take effect when the agent is restarted",
            owner.restart_needed.join(", ")
        );
        problems.push(Problem { degrades: false, ..general("restart_needed", message, None) });
    }
    for warning in &owner.warnings {
        problems.push(Problem { degrades: false, ..general("state_file", warning.clone(), None) });
    }
    problems
}

/// The first reasons why cgroups wait to be attached to, and how many there are besides.
fn told_waits(waiting: &[(std::path::PathBuf, String)]) -> Vec<String> {
    const TOLD: usize = 3;
    let mut told: Vec<String> = waiting.iter().take(TOLD).map(|(_, why)| why.clone()).collect();
    let more = waiting.len() - told.len();
    if let Some(last) = told.last_mut().filter(|_| more > 0) {
        *last = format!("{last}; and at {} more", count(more, "cgroup"));
    }
    told
}

/// What is amiss with a route.
pub(crate) fn of_view(route: &RouteView) -> Vec<Problem> {
    of_destination(route).into_iter().chain(of_sources(route)).chain(of_backends(route)).collect()
}

/// A problem of one route.
fn of(
    route: &RouteView,
    code: &str,
    degrades: bool,
    message: String,
    remedy: impl Into<Option<&'static str>>,
) -> Problem {
    Problem { source: route.source.clone(), degrades, ..general(code, message, remedy) }
}

fn name(route: &RouteView) -> String {
    route.source.as_ref().map_or_else(|| "a route".to_owned(), ToString::to_string)
}

fn of_destination(route: &RouteView) -> Option<Problem> {
    let resolution = route.resolution.as_ref()?;
    let destination = route
        .definition
        .as_ref()
        .map_or_else(|| "the destination".to_owned(), |raw| raw.destination.to_string());
    let (name, error) = (name(route), resolution.error.as_deref().unwrap_or("no answer yet"));
    match (resolution.state, route.backends.len()) {
        (ResolutionState::Unresolved, backends) => {
            let serves = match backends {
                0 => "no backend is known".to_owned(),
                many => format!("the kernel keeps the last {}", addresses(many)),
            };
            let message = format!(
                "{destination}, the destination of {name}, does not resolve: {error}; {serves}"
            );
            Some(of(
                route,
                "unresolved",
                true,
                message,
                "check the name, and the resolver that is asked for it (resolver, dns.upstreams)",
            ))
        }
        (_, 0) => {
            let message = format!("{destination}, the destination of {name}, has no address");
            Some(of(route, "no_backends", true, message, "check the name's A records"))
        }
        (ResolutionState::Stale, backends) => {
            let message =
                format!("keeping the last {} of {destination}: {error}", addresses(backends));
            Some(of(route, "stale_addresses", false, message, None))
        }
        (ResolutionState::Literal | ResolutionState::Fresh, _) => None,
    }
}

fn of_sources(route: &RouteView) -> Vec<Problem> {
    let name = name(route);
    let texts = route.definition.iter().flat_map(|raw| raw.source_ips.iter().flatten());
    let missing = texts.filter(|text| text.parse().is_ok_and(|ip| !host::has_address(ip)));
    let remedy = "add it to this host, or correct source_ips; until then connects go out from the \
        kernel's choice";
    let problem = |text: &String| {
        of(
            route,
            "source_ip_missing",
            true,
            format!("this host lacks {text}, a source address of {name}"),
            remedy,
        )
    };
    let problems: Vec<_> = missing.map(problem).collect();
    let failed = route.counters.map_or(0, |counters| counters.source_ip_failed);
    if !problems.is_empty() || failed == 0 {
        return problems;
    }
    let message = format!(
        "{failed} connects of {name} went out from the kernel's choice: the network namespace of \
            the caller lacks source_ips"
    );
    vec![of(
        route,
        "source_ip_failed",
        false,
        message,
        "nothing, where the host translates the pods' addresses; source_ips is for host networking",
    )]
}

fn of_backends(route: &RouteView) -> Vec<Problem> {
    let name = name(route);
    let aside: Vec<_> =
        route.backends.iter().filter(|backend| backend.state == BackendState::Ejected).collect();
    let failures = |backend: &BackendView| count(backend.failures as usize, "failure");
    if aside.len() < route.backends.len() {
        let words = |backend: &BackendView| {
            format!(
                "{}, a backend of {name}, is set aside after {}",
                backend.address,
                failures(backend)
            )
        };
        return aside
            .into_iter()
            .map(|backend| of(route, "backend_ejected", false, words(backend), None))
            .collect();
    }
    let message = match aside.as_slice() {
        [] => return Vec::new(),
        [only] => format!(
            "{}, the only backend of {name}, is set aside after {}: it is tried all the same",
            only.address,
            failures(only)
        ),
        all => format!(
            "all {} backends of {name} are set aside: they are tried all the same",
            all.len()
        ),
    };
    let remedy = "is this node's egress address on the load balancer's allowlist? `redirector \
        route show` tells refused from timed out";
    vec![of(route, "all_backends_ejected", true, message, remedy)]
}

fn addresses(number: usize) -> String {
    if number == 1 { "address".to_owned() } else { format!("{number} addresses") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::{Resolution, VipView};

    fn route(state: ResolutionState, backends: &[u32]) -> RouteView {
        let backend = |(n, &failures): (usize, &u32)| BackendView {
            address: std::net::IpAddr::from([203, 0, 113, n as u8 + 1]),
            state: if failures > 0 { BackendState::Ejected } else { BackendState::Eligible },
            failures,
            retry_in_ms: (failures > 0).then_some(500),
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
            }),
            backends: backends.iter().enumerate().map(backend).collect(),
            counters: None,
        }
    }

    fn told(state: ResolutionState, backends: &[u32]) -> Vec<(String, bool)> {
        of_view(&route(state, backends))
            .into_iter()
            .map(|problem| (problem.message, problem.degrades))
            .collect()
    }

    #[test]
    fn a_route_that_works_has_no_problem() {
        assert_eq!(told(ResolutionState::Fresh, &[0, 0]), []);
        assert_eq!(told(ResolutionState::Literal, &[0]), []);
    }

    #[test]
    fn a_source_address_that_this_host_lacks_is_told_and_one_that_it_has_is_not() {
        let from = |ips: &[&str], source_ip_failed| {
            let definition = crate::route::RawRoute {
                source_ips: Some(ips.iter().map(ToString::to_string).collect()),
                ..Default::default()
            };
            let counters =
                Some(crate::control::api::Counters { source_ip_failed, ..Default::default() });
            let view = RouteView {
                definition: Some(definition),
                counters,
                ..route(ResolutionState::Fresh, &[0])
            };
            of_view(&view)
                .into_iter()
                .map(|problem| (problem.code, problem.message, problem.degrades))
                .collect::<Vec<_>>()
        };
        assert_eq!(from(&["127.0.0.1"], 0), []);
        let message = "this host lacks 192.0.2.77, a source address of a.internal".to_owned();
        assert_eq!(
            from(&["127.0.0.1", "192.0.2.77"], 3),
            [("source_ip_missing".into(), message, true)]
        );
        assert_eq!(from(&["127.0.0.1"], 3)[0].0, "source_ip_failed");
    }

    #[test]
    fn what_is_amiss_is_told_and_degrades_only_when_connects_suffer() {
        let of = "the destination, the destination of a.internal";
        let told_of = |state, backends: &[u32]| told(state, backends).remove(0);
        assert_eq!(
            told_of(ResolutionState::Stale, &[0, 0]),
            ("keeping the last 2 addresses of the destination: SERVFAIL".into(), false)
        );
        let unresolved = format!("{of}, does not resolve: SERVFAIL; no backend is known");
        assert_eq!(told_of(ResolutionState::Unresolved, &[]), (unresolved, true));
        let kept = format!("{of}, does not resolve: SERVFAIL; the kernel keeps the last address");
        assert_eq!(told_of(ResolutionState::Unresolved, &[0]), (kept, true));
        assert_eq!(told_of(ResolutionState::Fresh, &[]), (format!("{of}, has no address"), true));
        let one = "203.0.113.2, a backend of a.internal, is set aside after 3 failures";
        assert_eq!(told(ResolutionState::Fresh, &[0, 3]), [(one.into(), false)]);
        let all = "all 2 backends of a.internal are set aside: they are tried all the same";
        assert_eq!(told(ResolutionState::Fresh, &[1, 3]), [(all.into(), true)]);
        let only = "203.0.113.1, the only backend of a.internal, is set aside after 1 failure: it \
            is tried all the same";
        assert_eq!(told(ResolutionState::Literal, &[1]), [(only.into(), true)]);
    }
}
