//! The packet datapath in the shapes of the control API.

use std::collections::BTreeMap;

use redirector_common::packet::flow::MAX_INTERFACE_FLOWS;

use crate::{
    agent::{attach::interface_manager::InterfaceView, state::agent_state::AgentState},
    control::api::{self, ServedBy},
    datapath::{FlowCounts, InterfaceAttachment, InterfaceRole, PacketStats, PinnedStatus},
    error::error_chain,
};

/// The flows of guests, by the index of their interface.
type Flows = BTreeMap<u32, FlowCounts>;

/// The packet datapath of the running agent.
pub(crate) fn packet(state: &AgentState) -> api::PacketInfo {
    with_flows(state, state.reconciler.datapath.flow_counts().ok().as_ref())
}

/// As [`packet`], without the flows of guests: to count them reads a whole table of the kernel.
pub(crate) fn packet_without_flows(state: &AgentState) -> api::PacketInfo {
    with_flows(state, None)
}

fn with_flows(state: &AgentState, flows: Option<&Flows>) -> api::PacketInfo {
    let datapath = &state.reconciler.datapath;
    let refused = datapath.packet_error().map(|error| error_chain(error));
    let stats = datapath.packet_stats().unwrap_or_default();
    let view = |view| interface(view, flows);
    api::PacketInfo {
        unavailable: refused.or_else(|| state.interfaces.error().map(str::to_owned)),
        answers_names: datapath.answers_names().unwrap_or_default(),
        names: datapath.live_names(),
        counters: counters(&stats),
        interfaces: state.interfaces.views(datapath).into_iter().map(view).collect(),
    }
}

/// The same from the pins, without an agent.
pub(crate) fn pinned(pinned: &PinnedStatus) -> api::PacketInfo {
    api::PacketInfo {
        unavailable: None,
        answers_names: pinned.names.enabled,
        names: pinned.names.live,
        counters: counters(&pinned.names.stats),
        interfaces: pinned.interfaces.iter().map(|at| attached(at, &pinned.flows)).collect(),
    }
}

fn attached(at: &InterfaceAttachment, flows: &Flows) -> api::InterfaceInfo {
    let view = InterfaceView {
        index: at.index,
        name: at.name.clone().unwrap_or_default(),
        kind: String::new(),
        role: Some(at.role),
        reason: None,
        failure: None,
        attachment: Some(at.clone()),
    };
    interface(view, Some(flows))
}

fn counters(stats: &PacketStats) -> BTreeMap<String, u64> {
    stats.iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// One interface: an attached one of a guest answers names, and redirects TCP unless its replies
/// pass our egress by; one of the host answers for attached cgroups, whose connects the cgroup
/// programs redirect.
fn interface(view: InterfaceView, flows: Option<&Flows>) -> api::InterfaceInfo {
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
        flows: attachment
            .filter(|at| at.redirects)
            .zip(flows)
            .map(|(at, flows)| flows_of(flows.get(&at.index))),
    }
}

fn flows_of(counts: Option<&FlowCounts>) -> api::FlowsInfo {
    let FlowCounts { open, half_open, refused } = counts.copied().unwrap_or_default();
    api::FlowsInfo { open, half_open, refused, limit: MAX_INTERFACE_FLOWS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::TcHook;

    fn view(attachment: Option<(InterfaceRole, bool)>) -> api::InterfaceInfo {
        let counts = FlowCounts { open: 3, half_open: 2, refused: 1 };
        let view = InterfaceView {
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
        };
        interface(view, Some(&Flows::from([(7, counts), (8, FlowCounts::default())])))
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

    #[test]
    fn an_interface_of_guests_has_its_own_flows() {
        let expected =
            api::FlowsInfo { open: 3, half_open: 2, refused: 1, limit: MAX_INTERFACE_FLOWS };
        assert_eq!(view(Some((InterfaceRole::Guest, true))).flows, Some(expected));
        assert_eq!(view(Some((InterfaceRole::Guest, false))).flows, None, "names only");
        assert_eq!(view(Some((InterfaceRole::Host, false))).flows, None);
        assert_eq!(view(None).flows, None);
    }
}
