//! Importing many routes at once.

use tracing::info;

use crate::{
    agent::{
        changes::{
            pending::{Completion, PendingChanges},
            refusal::refusal,
            route_changes::{self, ChangeCause},
        },
        state::agent_state::AgentState,
    },
    control::{ApiError, Caller, ErrorCode, Reply, api},
    route::{RawRoute, Route, RouteDiff, RouteSet},
};

/// Imports routes, or shows what that would change.
pub(crate) fn import(
    state: &mut AgentState,
    pending: &mut PendingChanges,
    request: api::ImportRequest,
    (caller, reply): (Caller, Reply<api::Imported>),
) -> Option<Completion> {
    let dry_run = request.dry_run;
    let committed = plan_import(state, request).and_then(|(next, answer)| {
        if dry_run {
            return Ok((None, answer));
        }
        let cause = ChangeCause::new("imported", caller);
        Ok((Some(route_changes::commit(state, next, &cause)?), answer))
    });
    match committed {
        Ok((Some(changed), answer)) => {
            let (added, differing, removed) =
                (answer.added.len(), answer.changed.len(), answer.removed.len());
            info!(%caller, added, changed = differing, removed, "routes were imported");
            let completion = Completion::Imported(reply, Box::new(answer));
            route_changes::settle(state, pending, changed, completion)
        }
        dry_run_or_refusal => {
            let _ = reply.send(dry_run_or_refusal.map(|(_, answer)| answer));
            None
        }
    }
}

/// A difference of routes in the API's shape.
pub(crate) fn imported(diff: RouteDiff, dry_run: bool) -> api::Imported {
    let RouteDiff { added, changed, removed, unchanged } = diff;
    let changed = changed
        .into_iter()
        .map(|change| api::Differing { old: change.old, new: change.new })
        .collect();
    api::Imported {
        version: api::VERSION,
        dry_run,
        added,
        changed,
        removed,
        unchanged,
        warnings: vec![],
    }
}

/// The routes with the imported ones.
fn plan_import(
    state: &AgentState,
    request: api::ImportRequest,
) -> Result<(RouteSet, api::Imported), ApiError> {
    let routes = parse(request.routes)?;
    let mut next = state.reconciler.routes.clone();
    let diff = next.import(routes, request.replace).map_err(refusal)?;
    Ok((next, imported(diff, request.dry_run)))
}

/// All routes, or the problems of all of them.
fn parse(raw: Vec<RawRoute>) -> Result<Vec<Route>, ApiError> {
    let mut problems: Vec<String> = Vec::new();
    let routes = raw
        .into_iter()
        .filter_map(|raw| Route::try_from(raw).map_err(|e| problems.push(e.to_string())).ok())
        .collect();
    if problems.is_empty() {
        Ok(routes)
    } else {
        Err(ApiError::new(ErrorCode::Invalid, problems.join("\n")))
    }
}
