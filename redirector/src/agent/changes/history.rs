//! Who changed what; and taking the last change back, which is a change like any other.

use std::collections::BTreeSet;

use tracing::info;

use crate::{
    agent::{
        changes::commands::{Finish, Why, imported},
        event_loop::Owner,
    },
    control::{
        ApiError, Caller, ErrorCode, Reply,
        api::{self, VERSION},
    },
    route::RouteSet,
    state::{Record, UndoError},
};

impl Owner {
    /// Every change that is kept.
    pub(crate) fn changes_made(&self) -> api::ChangeList {
        let records = self.state.records();
        let undone: BTreeSet<u64> = records.iter().filter_map(|record| record.undoes).collect();
        let changes = records
            .into_iter()
            .map(|record| told(&record, undone.contains(&record.number)))
            .collect();
        api::ChangeList { version: VERSION, changes }
    }

    /// One of them, with what it did.
    pub(crate) fn change_made(&self, number: u64) -> Result<api::ChangeShow, ApiError> {
        let records = self.state.records();
        let undone = records.iter().any(|record| record.undoes == Some(number));
        let record =
            records.into_iter().find(|record| record.number == number).ok_or_else(|| {
                ApiError::new(ErrorCode::NotFound, format!("there is no record of change {number}"))
                    .remedy("`redirector route history` has all that are kept")
            })?;
        Ok(api::ChangeShow { change: told(&record, undone), diff: imported(record.diff(), false) })
    }

    /// Takes the last change back, or says what that would change.
    pub(crate) fn rollback(
        &mut self,
        request: api::RollbackRequest,
        caller: Caller,
        reply: Reply<api::RolledBack>,
    ) {
        let made = || -> Result<(RouteSet, api::RolledBack), ApiError> {
            let record = self.state.last().map_err(refusal)?;
            let mut next = self.live.routes.clone();
            let diff = record.undo(&mut next).map_err(refusal)?;
            Ok((
                next,
                api::RolledBack {
                    undone: told(&record, !request.dry_run),
                    result: imported(diff, request.dry_run),
                },
            ))
        };
        let (next, answer) = match made() {
            Ok(made) => made,
            Err(error) => return drop(reply.send(Err(error))),
        };
        if request.dry_run {
            return drop(reply.send(Ok(answer)));
        }
        match self
            .commit(next, &Why { did: "rolled_back", caller, undoes: Some(answer.undone.number) })
        {
            Ok(changed) => {
                info!(%caller, change = answer.undone.number, "a change was taken back");
                self.settle_changed(changed, Finish::RolledBack(reply, Box::new(answer)));
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }
}

fn told(record: &Record, undone: bool) -> api::Change {
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
