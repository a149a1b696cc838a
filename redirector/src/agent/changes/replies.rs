//! Replies to changes whose destinations have settled.

use crate::{
    agent::{
        changes::pending::Completion,
        pods,
        state::agent_state::AgentState,
        views::{
            self,
            route_problems::{HostSearchList, of_route},
        },
    },
    control::{
        ApiError, ErrorCode,
        api::{self, ChangeKind},
    },
    net::SearchList,
    route::SourceName,
};

/// The most routes whose problems the reply to an import has: each is read from the kernel.
const MAX_WARNED: usize = 100;

/// What a caller on one node of a cluster may not know.
const LOCAL: &str = "this route is on this node only: `redirector route add --cluster` or a \
    RedirectRoute is for all nodes";

/// Sends the reply of a completion that has one. A client that is gone does not receive it; its
/// change stands.
pub(crate) fn send(state: &AgentState, completion: Completion) {
    match completion {
        Completion::None | Completion::Started | Completion::Cluster => {}
        Completion::Changed(reply, kind, source) => {
            drop(reply.send(changed(state, kind, source)));
        }
        Completion::Imported(reply, mut answer) => {
            answer.warnings = import_warnings(state, &answer);
            drop(reply.send(kernel_accepted(state).map(|()| *answer)));
        }
        Completion::RolledBack(reply, mut answer) => {
            answer.result.warnings = import_warnings(state, &answer.result);
            drop(reply.send(kernel_accepted(state).map(|()| *answer)));
        }
        Completion::Reloaded(reply, reloaded) => {
            let attached = kernel_accepted(state).and_then(|()| attached(state));
            drop(reply.send(attached.map(|()| reloaded)));
        }
    }
}

fn changed(
    state: &AgentState,
    change: ChangeKind,
    source: SourceName,
) -> Result<api::Changed, ApiError> {
    kernel_accepted(state)?;
    let route = views::route_view::find(&state.reconciler, &source);
    if change != ChangeKind::Removed && route.is_none() {
        return Err(ApiError::new(
            ErrorCode::Conflict,
            format!("another caller has removed the route of {source} meanwhile"),
        ));
    }
    let mut warnings = warnings(state, &source, &HostSearchList::new(SearchList::of_host));
    if pods::is_in_cluster() && matches!(change, ChangeKind::Added | ChangeKind::Changed) {
        warnings.push(LOCAL.to_owned());
    }
    Ok(api::Changed { version: api::VERSION, change, source, route, warnings })
}

fn kernel_accepted(state: &AgentState) -> Result<(), ApiError> {
    let Some(error) = state.reconciler.kernel_error() else { return Ok(()) };
    let message = format!("the change is saved, but the kernel rejected it: {error}");
    Err(ApiError::new(ErrorCode::Kernel, message)
        .remedy("the agent keeps retrying; `redirector status` shows when the change is live"))
}

fn attached(state: &AgentState) -> Result<(), ApiError> {
    let Some(error) = state.attach_error() else { return Ok(()) };
    let message = format!("the configuration is in force, but attaching failed: {error}");
    Err(ApiError::new(ErrorCode::Kernel, message)
        .remedy("the agent keeps retrying; `redirector status` shows what is not attached"))
}

/// The problems of routes that are new or different.
fn import_warnings(state: &AgentState, answer: &api::Imported) -> Vec<String> {
    let sources = answer.added.iter().chain(answer.changed.iter().map(|differing| &differing.new));
    let suspects: Vec<SourceName> = sources
        .filter_map(|raw| raw.source.parse().ok())
        .filter(|source| may_have_problem(state, source))
        .collect();
    let search = HostSearchList::new(SearchList::of_host);
    let warned = suspects.iter().take(MAX_WARNED);
    let mut messages: Vec<String> =
        warned.flat_map(|source| warnings(state, source, &search)).collect();
    if suspects.len() > MAX_WARNED {
        messages.push(format!(
            "{} more routes may have problems: `redirector status` lists all",
            suspects.len() - MAX_WARNED
        ));
    }
    messages
}

/// Whether a route may have a problem. Cheap, since an import may have a full pool of routes.
fn may_have_problem(state: &AgentState, source: &SourceName) -> bool {
    let resolved = state.reconciler.follower().resolved(source);
    let entry = state.reconciler.routes.get(source);
    !resolved.is_some_and(|resolved| resolved.is_unremarkable())
        || entry.is_some_and(|entry| !entry.route.source_ips.is_empty())
}

/// The problems of a route that was just changed.
fn warnings(state: &AgentState, source: &SourceName, search: &HostSearchList) -> Vec<String> {
    let view = views::route_view::find(&state.reconciler, source);
    let problems = view.map(|view| of_route(&view, search)).unwrap_or_default();
    problems.into_iter().map(|problem| problem.message).collect()
}
