//! A change of routes: leased, saved, resolved, and live before it is answered.

use std::{collections::BTreeMap, net::IpAddr};

use tracing::warn;

use crate::{
    agent::{
        changes::pending::{Completion, PendingChanges, SettledWait},
        state::{agent_state::AgentState, reconciler::MAX_SINGLE},
    },
    control::{ApiError, Caller, ErrorCode, api::ChangeKind},
    error::error_chain,
    host,
    route::{Edit, RouteSet, SourceName},
    state::{Author, Change, LeaseError},
};

/// Who makes a change, and which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangeCause {
    /// The action, as in the history: `added`, `imported`, and so on.
    pub(crate) action: &'static str,
    pub(crate) caller: Caller,
    /// The change that a rollback undoes.
    pub(crate) undoes: Option<u64>,
}

impl ChangeCause {
    pub(crate) fn new(action: &'static str, caller: Caller) -> Self {
        Self { action, caller, undoes: None }
    }

    pub(crate) fn of_route(kind: ChangeKind, caller: Caller) -> Self {
        Self::new(kind.as_str(), caller)
    }
}

/// Puts all routes of `next` in force: leases, saves and resolves them. Returns the sources that
/// differ from before.
pub(crate) fn commit(
    state: &mut AgentState,
    next: RouteSet,
    cause: &ChangeCause,
) -> Result<Vec<SourceName>, ApiError> {
    lease(state, next.iter().map(|entry| &entry.route.source))?;
    let edits = state.reconciler.routes.edits(&next);
    save(state, &edits, cause)?;
    Ok(replace_routes(state, next))
}

/// As [`commit`], for one route: the cost does not depend on the number of other routes.
pub(crate) fn commit_one(
    state: &mut AgentState,
    edit: Edit,
    cause: &ChangeCause,
) -> Result<SourceName, ApiError> {
    lease(state, edit.after.iter().map(|stored| &stored.route.source))?;
    save(state, std::slice::from_ref(&edit), cause)?;
    let source = edit.source.clone();
    let before = state.reconciler.apply_edit(edit);
    state.reconciler.hold_unresolved(&source, before.as_ref());
    Ok(source)
}

/// Makes the changed `sources` live. Returns `completion` when every destination is known;
/// otherwise [`settled`] returns it after the wait.
#[must_use]
pub(crate) fn settle(
    state: &mut AgentState,
    pending: &mut PendingChanges,
    sources: Vec<SourceName>,
    completion: Completion,
) -> Option<Completion> {
    warn_of_missing_source_ips(state, &sources);
    let held: Vec<_> = sources
        .iter()
        .filter_map(|source| Some((source.clone(), state.reconciler.held.change_of(source)?)))
        .collect();
    // A start has nobody else to serve meanwhile, and must not withdraw what still serves.
    let is_partial = sources.len() > MAX_SINGLE && !matches!(completion, Completion::Started);
    let later = if is_partial {
        sources
    } else {
        // An error is recorded by the reconciler, and reported with the completion.
        let _ = state.reconciler.reconcile_only(&sources);
        Vec::new()
    };
    if held.is_empty() && later.is_empty() {
        return Some(completion);
    }
    pending.spawn(state.reconciler.follower().clone(), (later, held), completion);
    None
}

/// Makes the sources of a wait live. Returns its completion.
pub(crate) fn settled(state: &mut AgentState, wait: SettledWait) -> Completion {
    for (source, change) in &wait.held {
        state.reconciler.held.release(source, *change);
    }
    let released = wait.held.into_iter().map(|(source, _)| source);
    let sources: Vec<_> = wait.sources.into_iter().chain(released).collect();
    let _ = state.reconciler.reconcile_only(&sources);
    wait.completion
}

/// A lease without a route is freed by the next reconciliation; a route without a lease could not
/// be live.
fn lease<'s>(
    state: &mut AgentState,
    sources: impl IntoIterator<Item = &'s SourceName>,
) -> Result<(), ApiError> {
    state.reconciler.leases.lease_all(sources).map_err(lease_refusal)
}

fn save(state: &mut AgentState, edits: &[Edit], cause: &ChangeCause) -> Result<(), ApiError> {
    let by = Author { uid: cause.caller.uid, gid: cause.caller.gid, pid: cause.caller.pid };
    let change = Change { by, action: cause.action, undoes: cause.undoes };
    let recorded = state.save(&change, edits).map_err(|error| {
        let message = format!("nothing was changed: {}", error_chain(&error));
        ApiError::new(ErrorCode::Storage, message)
    })?;
    if recorded {
        state.count_change(cause.action);
    }
    Ok(())
}

/// Replaces all routes. Returns the sources that differ.
fn replace_routes(state: &mut AgentState, next: RouteSet) -> Vec<SourceName> {
    let reconciler = &mut state.reconciler;
    let before = reconciler.replace_routes(next);
    let old = |source: &SourceName| before.get(source).map(|entry| entry.route);
    let differing =
        reconciler.routes.iter().filter(|entry| old(&entry.route.source) != Some(entry.route));
    let mut changed: Vec<_> = differing.map(|entry| entry.route.source.clone()).collect();
    for source in &changed {
        reconciler.hold_unresolved(source, old(source));
    }
    let removed = before
        .iter()
        .map(|entry| &entry.route.source)
        .filter(|source| reconciler.routes.get(source).is_none());
    changed.extend(removed.cloned());
    changed
}

/// A source address that this host lacks fails no connect, but the load balancer may not accept
/// the address that is used instead.
fn warn_of_missing_source_ips(state: &AgentState, sources: &[SourceName]) {
    let mut users: BTreeMap<IpAddr, (usize, &SourceName)> = BTreeMap::new();
    for source in sources {
        let Some(entry) = state.reconciler.routes.get(source) else { continue };
        for ip in &entry.route.source_ips {
            users.entry(*ip).or_insert((0, source)).0 += 1;
        }
    }
    for (ip, (routes, source)) in users {
        if !host::has_address(ip) {
            warn!(
                %source, routes,
                "this host lacks the source address {ip}: connects use the kernel's default \
                    source address"
            );
        }
    }
}

fn lease_refusal(error: LeaseError) -> ApiError {
    let code = if matches!(error, LeaseError::PoolFull(_)) {
        ErrorCode::Exhausted
    } else {
        ErrorCode::Storage
    };
    ApiError::new(code, format!("nothing was changed: {}", error_chain(&error)))
}
