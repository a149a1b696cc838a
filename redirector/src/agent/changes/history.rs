//! The history of changes, and rolling back the last one.

use std::collections::BTreeSet;

use tracing::info;

use crate::{
    agent::{
        changes::{
            imports::imported,
            pending::{Completion, PendingChanges},
            route_changes::{self, ChangeCause},
        },
        state::agent_state::AgentState,
    },
    control::{
        ApiError, Caller, ErrorCode, Reply,
        api::{self, VERSION},
    },
    route::RouteSet,
    state::{Record, UndoError},
};

/// Every change that is kept.
pub(crate) fn list(state: &AgentState) -> api::ChangeList {
    let records = state.state_dir().records();
    let undone: BTreeSet<u64> = records.iter().filter_map(|record| record.undoes).collect();
    let changes = records
        .into_iter()
        .map(|record| change(&record, undone.contains(&record.number)))
        .collect();
    api::ChangeList { version: VERSION, changes }
}

/// One change, with the routes it changed.
pub(crate) fn show(state: &AgentState, number: u64) -> Result<api::ChangeShow, ApiError> {
    let records = state.state_dir().records();
    let undone = records.iter().any(|record| record.undoes == Some(number));
    let record = records.into_iter().find(|record| record.number == number).ok_or_else(|| {
        ApiError::new(ErrorCode::NotFound, format!("there is no record of change {number}"))
            .remedy("`redirector route history` lists the changes that are kept")
    })?;
    Ok(api::ChangeShow { change: change(&record, undone), diff: imported(record.diff(), false) })
}

/// Undoes the last change, or shows what that would change.
pub(crate) fn rollback(
    state: &mut AgentState,
    pending: &mut PendingChanges,
    request: api::RollbackRequest,
    (caller, reply): (Caller, Reply<api::RolledBack>),
) -> Option<Completion> {
    let rolled_back = plan_rollback(state, request.dry_run).and_then(|(next, answer)| {
        if request.dry_run {
            return Ok((None, answer));
        }
        let undoes = Some(answer.undone.number);
        let cause = ChangeCause { undoes, ..ChangeCause::new("rolled_back", caller) };
        Ok((Some(route_changes::commit(state, next, &cause)?), answer))
    });
    match rolled_back {
        Ok((Some(changed), answer)) => {
            info!(%caller, change = answer.undone.number, "a change was rolled back");
            let completion = Completion::RolledBack(reply, Box::new(answer));
            route_changes::settle(state, pending, changed, completion)
        }
        dry_run_or_refusal => {
            let _ = reply.send(dry_run_or_refusal.map(|(_, answer)| answer));
            None
        }
    }
}

/// The routes without the last change.
fn plan_rollback(
    state: &AgentState,
    dry_run: bool,
) -> Result<(RouteSet, api::RolledBack), ApiError> {
    let record = state.state_dir().last().map_err(refusal)?;
    let mut next = state.reconciler.routes.clone();
    let diff = record.undo(&mut next).map_err(refusal)?;
    let answer =
        api::RolledBack { undone: change(&record, !dry_run), result: imported(diff, dry_run) };
    Ok((next, answer))
}

fn change(record: &Record, undone: bool) -> api::Change {
    api::Change {
        number: record.number,
        at: record.at,
        uid: record.by.uid,
        gid: record.by.gid,
        pid: record.by.pid,
        action: record.action.clone(),
        undoes: record.undoes,
        undone,
        sources: record.sources(),
    }
}

fn refusal(error: UndoError) -> ApiError {
    let code = match &error {
        UndoError::Nothing => ErrorCode::NotFound,
        UndoError::Differs { .. } | UndoError::Invalid { .. } => ErrorCode::Conflict,
    };
    ApiError::new(code, error.to_string())
}
