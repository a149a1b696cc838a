//! The names that a job's resolver asks for in place of the one that its client was given: as it
//! is, and with the suffixes of the search list.

use super::{
    cause_code::CauseCode,
    process::Process,
    report::{Candidate, Finding},
    target::{Target, route_for},
};
use crate::{control::api::RouteView, route::SourceName};

/// The candidates for a target in the order in which the process's libc asks for them; the name
/// alone without a process, or if its /etc/hosts has the name.
pub(super) fn candidates(
    target: &Target,
    process: Option<&Process>,
    routes: &[RouteView],
) -> Vec<Candidate> {
    let by_list = process.filter(|process| process.hosts.address(&target.name).is_none());
    let names = match by_list {
        Some(process) if !target.is_absolute => process.search.candidates(&target.name),
        _ => vec![target.name.clone()],
    };
    let candidate = |name: String| Candidate {
        route: route_for(&name, routes).and_then(|route| route.source.clone()),
        name,
    };
    names.into_iter().map(candidate).collect()
}

/// The route that a target means, and the name that it serves: the target's own name if it has a
/// route, else the first candidate that has one.
pub(super) fn meant<'c, 'r>(
    target: &Target,
    candidates: &'c [Candidate],
    routes: &'r [RouteView],
) -> Option<(&'c str, &'r RouteView)> {
    let own = candidates.iter().filter(|candidate| candidate.name == target.name);
    let with_route = |candidate: &'c Candidate| {
        Some((candidate.name.as_str(), route_for(&candidate.name, routes)?))
    };
    own.chain(candidates).find_map(with_route)
}

/// The search list leads the name to a wildcard, or away from its own route.
pub(super) fn search_list(
    name: &str,
    asked: &Candidate,
    own: Option<&SourceName>,
) -> Option<Finding> {
    if asked.name == name || own.is_some() && own == asked.route.as_ref() {
        return None;
    }
    let route = match &asked.route {
        Some(route) => format!("the route of {route} has it"),
        None => "no route has it, and its nameserver answers".to_owned(),
    };
    let cause = format!(
        "the job's resolver asks for {} before {name}, by its search list, and {route}",
        asked.name
    );
    let next = format!(
        "write {name}. with a final dot, lower ndots, or remove the suffix from the job's search \
            list; or name the sources instead of a wildcard"
    );
    let is_wildcard = asked.route.as_ref().is_some_and(SourceName::is_wildcard);
    match own {
        Some(_) => Some(Finding::new(CauseCode::SearchList, cause, next)),
        None if is_wildcard => {
            let cause = format!(
                "the job's resolver asks for {}, by its search list, and {route}: {name} itself \
                    has no route",
                asked.name
            );
            Some(Finding::note(CauseCode::SearchList, cause, next))
        }
        // A short name that stands for a route's source.
        None => None,
    }
}
