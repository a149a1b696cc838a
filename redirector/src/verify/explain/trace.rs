//! What a connect would do, from what is known. Pure: nothing is sent.

use std::net::IpAddr;

use super::{
    explainer::Explainer,
    facts::ExplainFacts,
    hook::{trace_guest_limits, trace_hook},
    resolver::trace_resolver,
    route::trace_route,
    target::ExplainTarget,
};
use crate::{
    control::api::RouteView,
    verify::{
        candidates::{candidates, search_list},
        cause_code::CauseCode,
        causes::no_route,
        report::{Candidate, Explained, Finding},
        target::{Target, route_for},
    },
};

/// What a connect would do.
pub(crate) fn explain(target: &ExplainTarget, known: &ExplainFacts<'_>) -> Explained {
    let mut explainer = Explainer::default();
    match target {
        ExplainTarget::Name(target) => trace_name(&mut explainer, target, known),
        ExplainTarget::Address(address, port) => {
            trace_address(&mut explainer, *address, *port, known)
        }
    }
    explainer.into_report(target, known)
}

fn trace_name(out: &mut Explainer, target: &Target, known: &ExplainFacts<'_>) {
    let routes = &known.status.routes;
    let candidates = candidates(target, known.process, routes);
    trace_search(out, &candidates);
    // Those before it are left to its nameserver, which knows none of them as a rule.
    let served = candidates.iter().find_map(|asked| Some((asked, route_for(&asked.name, routes)?)));
    out.candidates.clone_from(&candidates);
    let Some((asked, route)) = served else {
        out.stage(
            "name",
            format!("{} is not the source of a route: the upstreams answer DNS", target.name),
        );
        out.findings.push(no_route(&target.name, routes));
        out.verdict = Some("left alone: no route has this name".into());
        return;
    };
    let source = route.source.as_ref().map_or_else(String::new, ToString::to_string);
    let vip = route.vip.ipv4.map_or_else(|| "no address".to_owned(), |vip| vip.to_string());
    let answered =
        if known.status.agent.is_some() { "is answered with" } else { "would be answered with" };
    out.stage("name", format!("{} {answered} {vip}, by the route of {source}", asked.name));
    let own = route_for(&target.name, routes).and_then(|route| route.source.as_ref());
    out.findings.extend(search_list(&target.name, asked, own));
    trace_hook(out, known);
    trace_resolver(out, (&target.name, route.vip.ipv4), known);
    trace_guest_limits(out, route, known);
    trace_route(out, route, target.port, known);
}

/// Which names are asked for before the one that is answered.
fn trace_search(out: &mut Explainer, candidates: &[Candidate]) {
    if candidates.len() < 2 {
        return;
    }
    let end = candidates.iter().position(|asked| asked.route.is_some());
    let asked = candidates.iter().take(end.map_or(candidates.len(), |end| end + 1));
    let label = |asked: &Candidate| match &asked.route {
        Some(route) => format!("{} (route of {route})", asked.name),
        None => format!("{} (no route)", asked.name),
    };
    let asked: Vec<_> = asked.map(label).collect();
    out.stage("search", format!("its resolver asks for {}", asked.join(", then ")));
}

fn trace_address(out: &mut Explainer, address: IpAddr, port: u16, known: &ExplainFacts<'_>) {
    let routes = &known.status.routes;
    let is_vip = |route: &&RouteView| {
        [route.vip.ipv4.map(IpAddr::V4), route.vip.ipv6.map(IpAddr::V6)].contains(&Some(address))
    };
    if let Some(route) = routes.iter().find(is_vip) {
        let source = route
            .source
            .as_ref()
            .map_or_else(|| "a route whose name is not known".to_owned(), ToString::to_string);
        out.stage("vip", format!("{address} is the virtual address of {source}"));
        trace_hook(out, known);
        trace_guest_limits(out, route, known);
        return trace_route(out, route, port, known);
    }
    let pool = known
        .status
        .datapath
        .as_ref()
        .and_then(|datapath| datapath.pool_ipv4.parse::<ipnet::Ipv4Net>().ok());
    if matches!(address, IpAddr::V4(address) if pool.is_some_and(|pool| pool.contains(&address))) {
        out.stage("vip", format!("{address} is in the pool, and no route has it"));
        trace_hook(out, known);
        let cause =
            format!("{address} is no route's virtual address: a connect to it is refused at once");
        out.findings.push(Finding::new(
            CauseCode::VipWithoutRoute,
            cause,
            "was its route removed? the client holds an old answer: `redirector route list` \
                shows the current ones",
        ));
        out.verdict = Some("refused at once: no route has this address".into());
        return;
    }
    let of =
        routes.iter().find(|route| route.backends.iter().any(|backend| backend.address == address));
    let cause = match of.and_then(|route| route.source.as_ref()) {
        Some(source) => {
            out.stage("vip", format!("{address} is a backend of {source}, not a virtual address"));
            format!(
                "{address} is the load balancer's own address: a connect to it does not use \
                    {source}"
            )
        }
        None => {
            out.stage("vip", format!("{address} is outside the pool"));
            format!("{address} is not a virtual address: connects to it are not redirected")
        }
    };
    let next = "ask about the name, or a virtual address: `redirector route list` shows both";
    out.findings.push(Finding::new(CauseCode::NotVirtual, cause, next));
    out.verdict = Some("left alone: it goes to that address itself".into());
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
