//! The line that `systemctl status` shows.

use crate::{
    agent::{
        state::agent_state::AgentState,
        views::{agent_problems, packet_view},
    },
    control::count,
};

/// What is redirected, and the first reason why the agent is degraded or not ready.
pub(crate) fn of(state: &AgentState) -> String {
    let reconciler = &state.reconciler;
    let interfaces = state.interfaces.views(&reconciler.datapath);
    let attached = interfaces.iter().filter(|view| view.attachment.is_some()).count();
    let line = format!(
        "redirecting {} for {} and {}",
        count(reconciler.published_count(), "route"),
        count(state.attachments.attachments().len(), "cgroup"),
        count(attached, "interface")
    );
    // Once a second: no problem of flows degrades.
    let degrading = agent_problems::of_agent(state, &packet_view::packet_without_flows(state))
        .into_iter()
        .find(|problem| problem.degrades);
    let not_ready = || state.not_ready_reasons().into_iter().next();
    match degrading.map(|problem| problem.message).or_else(not_ready) {
        // A notification is one line.
        Some(reason) => format!("{line}; degraded: {}", reason.replace('\n', "; ")),
        None => line,
    }
}
