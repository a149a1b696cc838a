//! What is amiss, each with its remedy; the worst first.

use super::{owner::Owner, view};
use crate::{
    control::{
        api::{BackendState, Problem, ResolutionState, RouteView},
        count,
    },
    route::SourceName,
};

/// Everything that is amiss.
pub(super) fn all(owner: &Owner) -> Vec<Problem> {
    let mut problems = of_agent(owner);
    problems.extend(view::routes(owner).iter().flat_map(of_view));
    problems.sort_by_key(|problem| !problem.degrades);
    problems
}

/// What is amiss with one route.
pub(super) fn of_route(owner: &Owner, source: &SourceName) -> Vec<Problem> {
    view::route(owner, source).as_ref().map(of_view).unwrap_or_default()
}

/// A problem of the agent or the datapath as a whole.
pub(super) fn general(code: &str, message: String, remedy: impl Into<Option<&'static str>>) -> Problem {
    Problem { code: code.to_owned(), source: None, message, remedy: remedy.into().map(str::to_owned), degrades: true }
}

fn of_agent(owner: &Owner) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut note = |code: &str, message: String, remedy: Option<&'static str>| problems.push(general(code, message, remedy));
    if let Some(refused) = &owner.live.refused {
        note("not_in_kernel", format!("the kernel did not take a change of the routes: {refused}"), Some("the agent goes on trying"));
    }
    if let Some(error) = &owner.attached.error {
        note(
            "not_attached",
            format!("attaching failed: {error}"),
            Some("the agent goes on trying; `redirector check` tells what this host lacks"),
        );
    } else if owner.attached.list.is_empty() {
        let remedy = "set attach.cgroups, or start a container: the agent looks again every 2 s";
        note("not_attached", "no cgroup matches attach.cgroups, so nothing is redirected".into(), Some(remedy));
    }
    if let Some(error) = &owner.config_error {
        let message = format!("the configuration file has an error, what it said before serves on:\n{error}");
        note("config_error", message, Some("correct it; `redirector config check` reports all problems"));
    }
    if let Some(problem) = owner.live.publisher.as_ref().and_then(|publisher| publisher.upstream_problem()) {
        let remedy = "set dns.upstreams to servers that this host can reach";
        note("dns_failed", format!("names that are not ours can't be forwarded: {problem}"), Some(remedy));
    }
    if !owner.restart_needed.is_empty() {
        let message = format!("new values of {} take effect when the agent is restarted", owner.restart_needed.join(", "));
        problems.push(Problem { degrades: false, ..general("restart_needed", message, None) });
    }
    for warning in &owner.warnings {
        problems.push(Problem { degrades: false, ..general("state_file", warning.clone(), None) });
    }
    problems
}

/// What is amiss with a route.
pub(super) fn of_view(route: &RouteView) -> Vec<Problem> {
    let name = route.source.as_ref().map_or_else(|| "a route".to_owned(), ToString::to_string);
    let destination = route.definition.as_ref().map_or_else(|| "the destination".to_owned(), |raw| raw.destination.to_string());
    let problem = |code: &str, degrades: bool, message: String, remedy: Option<&str>| Problem {
        code: code.to_owned(),
        source: route.source.clone(),
        message,
        remedy: remedy.map(str::to_owned),
        degrades,
    };
    let mut problems = Vec::new();
    let resolution = route.resolution.as_ref();
    let error = resolution.and_then(|resolution| resolution.error.as_deref()).unwrap_or("no answer yet");
    let unresolved = resolution.is_some_and(|resolution| resolution.state == ResolutionState::Unresolved);
    if unresolved {
        let serves = match route.backends.len() {
            0 => "no backend is known".to_owned(),
            many => format!("the kernel keeps the last {}", addresses(many)),
        };
        let message = format!("{destination}, the destination of {name}, does not resolve ({error}): {serves}");
        problems.push(problem(
            "unresolved",
            true,
            message,
            Some("check the name, and the resolver that is asked for it (resolver, dns.upstreams)"),
        ));
    } else if route.backends.is_empty() && route.resolution.is_some() {
        let message = format!("{destination}, the destination of {name}, has no address");
        problems.push(problem("no_backends", true, message, Some("check the name's A records")));
    } else if resolution.is_some_and(|resolution| resolution.state == ResolutionState::Kept) {
        let message = format!("keeping the last {} of {destination}: {error}", addresses(route.backends.len()));
        problems.push(problem("kept_addresses", false, message, None));
    }
    problems.extend(set_aside(route, &name, &problem));
    problems
}

fn set_aside(route: &RouteView, name: &str, problem: &dyn Fn(&str, bool, String, Option<&str>) -> Problem) -> Vec<Problem> {
    let aside: Vec<_> = route.backends.iter().filter(|backend| backend.state == BackendState::SetAside).collect();
    let failures = |failures: u32| count(failures as usize, "failure");
    if aside.is_empty() {
        return Vec::new();
    }
    if aside.len() == route.backends.len() {
        let message = match aside.as_slice() {
            [only] => format!(
                "{}, the only backend of {name}, is set aside after {}: it is tried all the same",
                only.address,
                failures(only.failures)
            ),
            all => format!("all {} backends of {name} are set aside: they are tried all the same", all.len()),
        };
        let remedy = "is this node's egress address on the load balancer's allowlist? `redirector route show` tells refused from timed out";
        return vec![problem("all_backends_set_aside", true, message, Some(remedy))];
    }
    let one = |backend: &&crate::control::api::BackendView| {
        let message = format!("{}, a backend of {name}, is set aside after {}", backend.address, failures(backend.failures));
        problem("backend_set_aside", false, message, None)
    };
    aside.iter().map(one).collect()
}

fn addresses(number: usize) -> String {
    if number == 1 { "address".to_owned() } else { format!("{number} addresses") }
}
