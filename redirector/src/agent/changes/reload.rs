//! Reading the configuration file again.

use tracing::{info, warn};

use crate::{
    agent::{
        changes::route_changes::{self, ChangeCause},
        state::agent_state::AgentState,
    },
    config::Accepted,
    control::{ApiError, Caller, ErrorCode, api},
    error::error_chain,
    route::SourceName,
};

/// Reads the configuration file and puts it in force. On an error the old configuration stays in
/// force, and `status` shows the error.
pub(crate) fn reload(state: &mut AgentState) -> Result<api::Reloaded, ApiError> {
    let applied = match state.config.load() {
        Ok(next) => apply(state, next),
        Err(errors) => {
            let remedy = "correct the file; the previous configuration stays in force";
            Err(ApiError::new(ErrorCode::Invalid, errors.to_string()).remedy(remedy))
        }
    };
    let changed = applied.inspect_err(|error| {
        warn!("the configuration was not reloaded, the previous one stays in force: {error}");
        state.config.reject(error.message.clone());
    })?;
    info!(changed = changed.len(), "the configuration was reloaded");
    let restart_needed = state.config.restart_needed();
    if !restart_needed.is_empty() {
        warn!(keys = restart_needed.join(", "), "these keys take effect after a restart");
    }
    Ok(api::Reloaded {
        version: api::VERSION,
        changed,
        restart_needed_for: restart_needed.to_vec(),
    })
}

fn apply(state: &mut AgentState, next: Accepted) -> Result<Vec<SourceName>, ApiError> {
    let config = &next.config;
    // Not so at a start: a path that was written just now and is no cgroup is a mistake.
    if config.attach.cgroups != state.config.current().attach.cgroups {
        crate::datapath::cgroups(&config.attach.cgroups)
            .map_err(|error| ApiError::new(ErrorCode::Invalid, error_chain(&error)))?;
    }
    let reconciler = &state.reconciler;
    let routes = reconciler.routes.with_file(reconciler.pool().clone(), config.routes.clone());
    // The stored routes do not change, so nothing is recorded.
    let cause = ChangeCause::new("reloaded", Caller::default());
    let changed = route_changes::commit(state, routes, &cause)?;
    if !changed.is_empty() {
        state.count_change(cause.action);
    }
    let (health, datapath) = (&config.health, &mut state.reconciler.datapath);
    if let Err(error) = datapath
        .set_connect_timeout(health.connect_timeout)
        .and_then(|()| datapath.set_eject_on_reset(health.eject_on_reset))
    {
        warn!("failed to put the settings of health in force: {}", error_chain(&error));
    }
    let attaches = state.config.current().attach != config.attach;
    state.config.accept(next);
    if attaches {
        // Now rather than at the next scan: the caller waits until the change is in force.
        state.attach_all();
    }
    Ok(changed)
}
