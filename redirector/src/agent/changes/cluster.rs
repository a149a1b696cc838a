//! The routes of the cluster have changed.

use crate::{
    agent::{
        changes::{
            pending::{Completion, PendingChanges},
            route_changes::{self, ChangeCause},
        },
        state::agent_state::AgentState,
    },
    control::Caller,
};

/// Puts the routes of the slices in force.
pub(crate) fn apply(state: &mut AgentState, pending: &mut PendingChanges) -> Option<Completion> {
    let AgentState { cluster_routes, reconciler, .. } = state;
    if !cluster_routes.take(reconciler.pool()) {
        cluster_routes.report(reconciler);
        return None;
    }
    let next = state.reconciler.routes.clone().with_cluster(state.cluster_routes.routes());
    // The stored routes do not change, so nothing is recorded.
    let cause = ChangeCause::new("cluster", Caller::default());
    match route_changes::commit(state, next, &cause) {
        Ok(changed) => {
            state.cluster_routes.set_refused(None);
            if !changed.is_empty() {
                state.count_change(cause.action);
            }
            route_changes::settle(state, pending, changed, Completion::Cluster)
        }
        Err(error) => {
            state.cluster_routes.set_refused(Some(error.message));
            state.cluster_routes.report(&state.reconciler);
            None
        }
    }
}
