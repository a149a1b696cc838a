//! The packet datapath in the shapes of the control API.

use crate::{
    agent::{attach::interface_manager::InterfaceView, state::agent_state::AgentState},
    control::api::{self, ServedBy},
    datapath::{InterfaceAttachment, InterfaceRole, PacketStats, PinnedStatus},
    error::error_chain,
};

/// The packet datapath of the running agent.
pub(crate) fn packet(state: &AgentState) -> api::PacketInfo {
    let datapath = &state.reconciler.datapath;
    let refused = datapath.packet_error().map(|error| error_chain(error));
    let stats = datapath.packet_stats().unwrap_or_default();
    api::PacketInfo {
        unavailable: refused.or_else(|| state.interfaces.error().map(str::to_owned)),
        answers_names: datapath.answers_names().unwrap_or_default(),
        names: datapath.names().values().filter(|name| !name.pending).count(),
        counters: counters(&stats),
        interfaces: state.interfaces.views(datapath).into_iter().map(interface).collect(),
    }
}

/// The same from the pins, without an agent.
pub(crate) fn pinned(pinned: &PinnedStatus) -> api::PacketInfo {
    api::PacketInfo {
        unavailable: None,
        answers_names: pinned.names.enabled,
        names: pinned.names.live,
        counters: counters(&pinned.names.stats),
        interfaces: pinned.interfaces.iter().map(attached).collect(),
    }
}

fn attached(at: &InterfaceAttachment) -> api::InterfaceInfo {
    interface(InterfaceView {
        index: at.index,
        name: at.name.clone().unwrap_or_default(),
        kind: String::new(),
        role: Some(at.role),
        reason: None,
        failure: None,
        attachment: Some(at.clone()),
    })
}

fn counters(stats: &PacketStats) -> std::collections::BTreeMap<String, u64> {
    stats.iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// One interface: an attached one of a guest answers names, and redirects TCP unless its replies
/// pass our egress by; one of the host answers for attached cgroups, whose connects the cgroup
/// programs redirect.
pub(crate) fn interface(view: InterfaceView) -> api::InterfaceInfo {
    let attachment = view.attachment.as_ref();
    let (names, connects) = match attachment.map(|at| (at.role, at.redirects)) {
        Some((InterfaceRole::Guest, true)) => (ServedBy::Packet, ServedBy::Packet),
        Some((InterfaceRole::Guest, false)) => (ServedBy::Packet, ServedBy::None),
        Some((InterfaceRole::Host, _)) => (ServedBy::Packet, ServedBy::Cgroup),
        None => (ServedBy::None, ServedBy::None),
    };
    api::InterfaceInfo {
        index: view.index,
        name: Some(view.name).filter(|name| !name.is_empty()),
        kind: view.kind,
        names,
        connects,
        failed: view.failure.is_some(),
        reason: view.failure.or(view.reason),
        hook: attachment.map(|at| at.hook.as_str().to_owned()),
        programs: attachment.map(|at| at.programs.clone()).unwrap_or_default(),
        reattached: attachment.map_or(0, |at| at.reattached),
        preceded_by: attachment.map(|at| at.preceded_by.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::TcHook;

    fn view(attachment: Option<(InterfaceRole, bool)>) -> api::InterfaceInfo {
        interface(InterfaceView {
            index: 7,
            name: "veth7".into(),
            kind: "veth".into(),
            role: attachment.map(|(role, _)| role),
            reason: Some("a reason".into()),
            failure: None,
            attachment: attachment.map(|(role, redirects)| InterfaceAttachment {
                index: 7,
                name: Some("veth7".into()),
                role,
                hook: TcHook::Tcx,
                programs: vec!["rd_ingress".into()],
                redirects,
                reattached: 1,
                preceded_by: Vec::new(),
            }),
        })
    }

    #[test]
    fn each_interface_names_the_way_that_serves_it() {
        let ways = |at| {
            let view = view(at);
            (view.names, view.connects)
        };
        assert_eq!(ways(Some((InterfaceRole::Guest, true))), (ServedBy::Packet, ServedBy::Packet));
        assert_eq!(ways(Some((InterfaceRole::Guest, false))), (ServedBy::Packet, ServedBy::None));
        assert_eq!(ways(Some((InterfaceRole::Host, false))), (ServedBy::Packet, ServedBy::Cgroup));
        assert_eq!(ways(None), (ServedBy::None, ServedBy::None));
        let attached = view(Some((InterfaceRole::Guest, true)));
        assert_eq!((attached.hook.as_deref(), attached.reattached), (Some("tcx"), 1));
        assert_eq!(view(None).reason.as_deref(), Some("a reason"));
    }
}
