//! The backends of the route that applies, as the one who connects meets them.

use std::{collections::BTreeMap, net::SocketAddr};

use super::explainer::Explainer;
use crate::{
    control::api::{BackendState, BackendView, EjectionView, RouteView},
    datapath::EjectionCause,
    verify::{
        cause_code::CauseCode,
        causes::{no_backends, unusable_family},
        report::Finding,
    },
};

/// The backends at `port`. `client` is who connects, as the ejections name it.
pub(super) fn trace_backends(
    out: &mut Explainer,
    route: &RouteView,
    port: u16,
    client: Option<&str>,
) {
    let list: Vec<_> = route.backends.iter().map(|backend| render_backend(backend, port)).collect();
    out.stage("backends", if list.is_empty() { "none known".to_owned() } else { list.join(", ") });
    let (ejected, eligible): (Vec<_>, Vec<_>) =
        route.backends.iter().partition(|backend| is_ejected(backend, port, client));
    if route.backends.is_empty() {
        out.findings.push(without_backends(route));
    } else if let Some(finding) = unusable_family(route) {
        out.findings.push(finding);
    } else if eligible.is_empty() {
        out.findings.push(all_ejected(&ejected, client));
    } else if !ejected.is_empty() {
        let (some, all) = (ejected.len(), route.backends.len());
        let cause = format!("{some} of {all} backends are ejected after recent failures");
        let next = "connects go to the others";
        out.findings.push(Finding::note(CauseCode::BackendEjected, cause, next));
    }
    if client.is_none() {
        out.findings.extend(ejected_for_clients(&eligible, port));
    }
    let to = match eligible.as_slice() {
        [] => "one of them".to_owned(),
        [only] => SocketAddr::new(only.address, port).to_string(),
        several => {
            format!("one of {} eligible backends, selected per connect", several.len())
        }
    };
    out.verdict = Some(format!("redirected to {to}"));
}

/// Whether connects of `client` avoid this backend.
fn is_ejected(backend: &BackendView, port: u16, client: Option<&str>) -> bool {
    backend.state == BackendState::Ejected
        || client.is_some_and(|client| clients(backend, port).any(|of| of == client))
}

/// For whom alone this backend is ejected.
fn clients(backend: &BackendView, port: u16) -> impl Iterator<Item = &str> {
    let at_port = backend.ejections.iter().filter(move |ejection| ejection.port == port);
    at_port.filter_map(|ejection| ejection.client.as_deref())
}

fn render_backend(backend: &BackendView, port: u16) -> String {
    let clients: Vec<_> = clients(backend, port).collect();
    let resets = |at: &EjectionView| at.port == port && at.cause == EjectionCause::Reset;
    let cause = if backend.ejections.iter().any(resets) { " after resets" } else { "" };
    let note = match (backend.state, backend.retry_in_ms) {
        (BackendState::Eligible, _) if clients.is_empty() => String::new(),
        (BackendState::Eligible, _) => format!(" (ejected for {}{cause})", clients.join(", ")),
        (BackendState::Ejected, Some(ms)) => format!(" (ejected{cause}, retry in {ms} ms)"),
        (BackendState::Ejected, None) => format!(" (ejected{cause})"),
    };
    format!("{}{note}", SocketAddr::new(backend.address, port))
}

fn without_backends(route: &RouteView) -> Finding {
    let finding = no_backends(route);
    let pass =
        route.definition.as_ref().is_some_and(|raw| raw.on_no_backend.as_deref() == Some("pass"));
    let does = if pass {
        ", the route lets connects pass to the virtual address itself"
    } else {
        ", connects are refused at once"
    };
    Finding { cause: format!("{}{does}", finding.cause), ..finding }
}

fn all_ejected(backends: &[&BackendView], client: Option<&str>) -> Finding {
    let for_all = backends.iter().all(|backend| backend.state == BackendState::Ejected);
    let whom = client.filter(|_| !for_all).map_or_else(String::new, |of| format!(" for {of}"));
    let cause = match backends.len() {
        1 => format!(
            "the only backend is ejected{whom} after recent failures, but is still used: no other \
                is left"
        ),
        all => format!(
            "all {all} backends are ejected{whom} after recent failures, but are still used: no \
                other is left"
        ),
    };
    let next = "`redirector verify` shows how they fail; is this node's egress address on the load \
        balancer's allowlist?";
    Finding::new(CauseCode::AllEjected, cause, next)
}

/// What differs for single clients, where it is not said who connects.
fn ejected_for_clients(eligible: &[&BackendView], port: u16) -> Vec<Finding> {
    let mut ejected: BTreeMap<&str, usize> = BTreeMap::new();
    for client in eligible.iter().flat_map(|backend| clients(backend, port)) {
        *ejected.entry(client).or_default() += 1;
    }
    let finding = |(client, some): (&str, usize)| {
        let which = match eligible.len() {
            1 => "the only backend is".to_owned(),
            all if all == some => format!("all {all} backends are"),
            all => format!("{some} of {all} backends are"),
        };
        let cause = format!("{which} ejected for {client} only");
        let next = "`redirector explain --pid` or `--interface` explains a connect of that client";
        Finding::note(CauseCode::BackendEjected, cause, next)
    };
    ejected.into_iter().map(finding).collect()
}
