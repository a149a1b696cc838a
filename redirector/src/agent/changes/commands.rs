//! Commands of the control API, each executed as a whole.

use tracing::info;

use crate::{
    agent::{
        changes::{
            history, imports,
            pending::{Completion, PendingChanges},
            refusal::{invalid, refusal},
            reload,
            route_changes::{self, ChangeCause},
        },
        state::agent_state::AgentState,
        views::{host_sockets, route_view, status},
    },
    control::{
        ApiError, Caller, Command, Reply, Subscription,
        api::{self, ChangeKind, VERSION},
    },
    route::{Edit, Route, RouteOrigin, RouteSet, SourceName},
};

/// A planned change of one route: what it does, to which source, and how; no edit when the route
/// is like that already.
type PlannedChange = (ChangeKind, SourceName, Option<Edit>);

/// Executes a command. Returns the completion of a change whose destinations are known; the others
/// complete later.
#[must_use]
pub(crate) fn execute(
    state: &mut AgentState,
    pending: &mut PendingChanges,
    command: Command,
) -> Option<Completion> {
    // A client that is gone does not receive its reply; its change stands.
    match command {
        Command::Status(reply) => reply_status(status::status(state), reply),
        Command::Progress(reply) => drop(reply.send(Ok(progress(state)))),
        Command::Routes(reply) => drop(reply.send(Ok(list(state)))),
        Command::Route(source, reply) => drop(reply.send(show(state, &source))),
        Command::Export(reply) => drop(reply.send(Ok(export(state)))),
        Command::History(reply) => drop(reply.send(Ok(history::list(state)))),
        Command::Change(number, reply) => drop(reply.send(history::show(state, number))),
        Command::Events(query, reply) => drop(reply.send(subscribe(state, query))),
        Command::Add(raw, caller, reply) => {
            let planned = Route::try_from(*raw)
                .map_err(invalid)
                .and_then(|route| plan_add(&state.reconciler.routes, route));
            return change(state, pending, planned, (caller, reply));
        }
        Command::Set(source, patch, caller, reply) => {
            let planned = plan_set(&state.reconciler.routes, source, &patch);
            return change(state, pending, planned, (caller, reply));
        }
        Command::Remove(source, caller, reply) => {
            let planned = plan_remove(&state.reconciler.routes, source);
            return change(state, pending, planned, (caller, reply));
        }
        Command::Rollback(request, caller, reply) => {
            return history::rollback(state, pending, request, (caller, reply));
        }
        Command::Import(request, caller, reply) => {
            return imports::import(state, pending, request, (caller, reply));
        }
        Command::Reload(caller, reply) => return reload_for(state, pending, (caller, reply)),
    }
    None
}

/// Replies when the host's sockets are listed.
fn reply_status(mut status: api::Status, reply: Reply<api::Status>) {
    tokio::spawn(async move {
        host_sockets::add(&mut status).await;
        drop(reply.send(Ok(status)));
    });
}

fn progress(state: &AgentState) -> api::Progress {
    let reconciler = &state.reconciler;
    api::Progress {
        version: VERSION,
        routes: reconciler.routes.len(),
        live: reconciler.published_count(),
        waiting: reconciler.held.len(),
    }
}

fn list(state: &AgentState) -> api::RouteList {
    api::RouteList { version: VERSION, routes: route_view::all(&state.reconciler) }
}

fn show(state: &AgentState, source: &SourceName) -> Result<api::RouteShow, ApiError> {
    let serving = state.reconciler.routes.serving(source).map(|entry| entry.route.source.clone());
    let route = serving.and_then(|source| route_view::find(&state.reconciler, &source));
    let show = route.map(|route| api::RouteShow { version: VERSION, route });
    show.ok_or_else(|| unknown(state, source))
}

fn export(state: &AgentState) -> api::Export {
    let routes = state.reconciler.routes.iter().map(|entry| entry.route.into()).collect();
    api::Export { version: VERSION, wildcards: "one_label".into(), routes }
}

/// A reader's events. A name that only a wildcard matches stands for the wildcard. A query for a
/// route that does not exist and has no events is an error.
fn subscribe(state: &AgentState, mut query: api::EventQuery) -> Result<Subscription, ApiError> {
    let routes = &state.reconciler.routes;
    if let Some(serving) = query.route.as_ref().and_then(|source| routes.serving(source)) {
        query.route = Some(serving.route.source.clone());
    }
    let missing = query.route.clone().filter(|source| routes.get(source).is_none());
    let subscription = state.events.subscribe(query);
    match missing {
        Some(source) if subscription.is_empty() => Err(unknown(state, &source)),
        _ => Ok(subscription),
    }
}

fn unknown(state: &AgentState, source: &SourceName) -> ApiError {
    refusal(state.reconciler.routes.unknown(source))
}

fn plan_add(routes: &RouteSet, route: Route) -> Result<PlannedChange, ApiError> {
    let edit = routes.plan_add(route, RouteOrigin::CommandLine).map_err(refusal)?;
    Ok((ChangeKind::Added, edit.source.clone(), Some(edit)))
}

fn plan_set(
    routes: &RouteSet,
    source: SourceName,
    patch: &crate::route::RoutePatch,
) -> Result<PlannedChange, ApiError> {
    let edit = routes.plan_set(&source, patch).map_err(refusal)?;
    let kind = if edit.is_some() { ChangeKind::Changed } else { ChangeKind::Unchanged };
    Ok((kind, source, edit))
}

fn plan_remove(routes: &RouteSet, source: SourceName) -> Result<PlannedChange, ApiError> {
    let edit = routes.plan_remove(&source).map_err(refusal)?;
    let hides = routes.get(&source).is_some_and(|entry| entry.hides.is_some());
    let kind = if hides { ChangeKind::Restored } else { ChangeKind::Removed };
    Ok((kind, source, Some(edit)))
}

/// Carries out the change of one route: saved, then live.
fn change(
    state: &mut AgentState,
    pending: &mut PendingChanges,
    planned: Result<PlannedChange, ApiError>,
    (caller, reply): (Caller, Reply<api::Changed>),
) -> Option<Completion> {
    let committed = planned.and_then(|(kind, source, edit)| {
        let cause = ChangeCause::of_route(kind, caller);
        let changed =
            edit.map(|edit| route_changes::commit_one(state, edit, &cause)).transpose()?;
        Ok((changed.into_iter().collect(), kind, source))
    });
    match committed {
        Ok((changed, kind, source)) => {
            info!(%caller, %source, change = ?kind, "a route was changed");
            let completion = Completion::Changed(reply, kind, source);
            route_changes::settle(state, pending, changed, completion)
        }
        Err(error) => {
            let _ = reply.send(Err(error));
            None
        }
    }
}

fn reload_for(
    state: &mut AgentState,
    pending: &mut PendingChanges,
    (caller, reply): (Caller, Reply<api::Reloaded>),
) -> Option<Completion> {
    info!(%caller, "a reload was requested");
    match reload::reload(state) {
        Ok(reloaded) => {
            let changed = reloaded.changed.clone();
            let completion = Completion::Reloaded(reply, reloaded);
            route_changes::settle(state, pending, changed, completion)
        }
        Err(error) => {
            let _ = reply.send(Err(error));
            None
        }
    }
}
