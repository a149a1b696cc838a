//! The route that applies, and its port.

use super::{backends::trace_backends, explainer::Explainer, facts::ExplainFacts};
use crate::{
    control::api::{ProblemCode, RouteView},
    verify::{cause_code::CauseCode, causes::port_not_listed, lookups::ports, report::Finding},
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
    trace_backends(out, route, to.unwrap_or(port), known.client.as_deref());
}
