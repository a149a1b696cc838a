//! The route that applies: its port and its backends.

use std::net::SocketAddr;

use super::{explainer::Explainer, facts::ExplainFacts};
use crate::{
    control::api::{BackendState, EjectionView, ProblemCode, RouteView},
    verify::{
        cause_code::CauseCode,
        causes::{no_backends, port_not_listed, unusable_family},
        lookups::ports,
        report::Finding,
    },
};

/// The route: its port, its backends.
pub(super) fn trace_route(
    out: &mut Explainer,
    route: &RouteView,
    port: u16,
    known: &ExplainFacts<'_>,
) {
    out.route = Some(route.clone());
    if let Some(problem) =
        known.status.problems.iter().find(|problem| problem.code == ProblemCode::KernelUpdateFailed)
    {
        out.findings.push(Finding::new(
            CauseCode::KernelUpdateFailed,
            problem.message.clone(),
            "the agent keeps retrying; run `redirector check` to see what is missing",
        ));
    }
    if !route.live {
        let source =
            route.source.as_ref().map_or_else(|| "the route".to_owned(), ToString::to_string);
        let cause = format!(
            "{source} is not live yet: it waits for the first answer about its destination, or \
                for the kernel"
        );
        out.findings.push(Finding::new(
            CauseCode::NotLive,
            cause,
            "`redirector route show` shows what it waits for",
        ));
    }
    let listed = ports(route);
    let to = listed.as_ref().map_or(Some(port), |ports| ports.destination(port));
    match to {
        Some(to) if to == port => out.stage("port", format!("{port} stays {port}")),
        Some(to) => out.stage("port", format!("{port} becomes {to}")),
        None => {
            out.stage("port", format!("{port} is not listed"));
            out.findings.push(port_not_listed(route, port));
        }
    }
    trace_backends(out, route, to.unwrap_or(port));
}

fn trace_backends(out: &mut Explainer, route: &RouteView, port: u16) {
    let pass =
        route.definition.as_ref().is_some_and(|raw| raw.on_no_backend.as_deref() == Some("pass"));
    let eligible: Vec<_> =
        route.backends.iter().filter(|backend| backend.state == BackendState::Eligible).collect();
    let list: Vec<_> = route
        .backends
        .iter()
        .map(|backend| {
            let of_port = |at: &&EjectionView| at.port == port;
            let clients: Vec<_> = backend
                .ejections
                .iter()
                .filter(of_port)
                .filter_map(|ejection| ejection.client.as_deref())
                .collect();
            let note = match (backend.state, backend.retry_in_ms) {
                (BackendState::Eligible, _) if !clients.is_empty() => {
                    format!(" (ejected for {})", clients.join(", "))
                }
                (BackendState::Eligible, _) => String::new(),
                (BackendState::Ejected, Some(ms)) => {
                    format!(" (ejected, retry in {ms} ms)")
                }
                (BackendState::Ejected, None) => " (ejected)".into(),
            };
            format!("{}{note}", SocketAddr::new(backend.address, port))
        })
        .collect();
    out.stage("backends", if list.is_empty() { "none known".to_owned() } else { list.join(", ") });
    if route.backends.is_empty() {
        let finding = no_backends(route);
        let does = if pass {
            ", the route lets connects pass to the virtual address itself"
        } else {
            ", connects are refused at once"
        };
        out.findings.push(Finding { cause: format!("{}{does}", finding.cause), ..finding });
    } else if let Some(finding) = unusable_family(route) {
        out.findings.push(finding);
    } else if eligible.is_empty() {
        let cause = match route.backends.len() {
            1 => "the only backend is ejected after recent failures, but is still used: no other \
                    is left"
                .to_owned(),
            all => format!(
                "all {all} backends are ejected after recent failures, but are still used: no \
                    other is left"
            ),
        };
        let next = "`redirector verify` shows how they fail; is this node's egress address on \
            the load balancer's allowlist?";
        out.findings.push(Finding::new(CauseCode::AllEjected, cause, next));
    } else if eligible.len() < route.backends.len() {
        let cause = format!(
            "{} of {} backends are ejected after recent failures",
            route.backends.len() - eligible.len(),
            route.backends.len()
        );
        out.findings.push(Finding::note(
            CauseCode::BackendEjected,
            cause,
            "connects go to the others",
        ));
    }
    let to = match eligible.len() {
        0 => "one of them".to_owned(),
        1 => SocketAddr::new(eligible[0].address, port).to_string(),
        many => format!("one of {many} eligible backends, selected per connect"),
    };
    out.verdict = Some(format!("redirected to {to}"));
}
