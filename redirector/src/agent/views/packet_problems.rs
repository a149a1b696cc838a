//! Problems of the packet datapath, each with its remedy.

use crate::{
    agent::state::packet_pressure::Pressure,
    control::{
        api::{FlowsInfo, InterfaceInfo, PacketInfo, Problem, ProblemCode, ServedBy},
        count,
    },
};

/// Problems of the packet datapath.
pub(crate) fn of_packets(packet: &PacketInfo, pressure: Pressure) -> Vec<Problem> {
    if let Some(reason) = &packet.unavailable {
        return vec![unavailable(reason)];
    }
    let interfaces = &packet.interfaces;
    let failed = interfaces.iter().filter(|at| at.failed).map(failed);
    let preceded = interfaces.iter().filter(|at| !at.preceded_by.is_empty()).map(preceded);
    let mut problems: Vec<_> = failed.chain(preceded).collect();
    problems.extend(bypassed(interfaces));
    problems.extend(pressure.flows_full.then(flows_full));
    problems.extend(interfaces.iter().filter_map(near_limit));
    problems.extend(pressure.interface_over_limit.then(|| interface_over_limit(interfaces)));
    problems
}

fn unavailable(reason: &str) -> Problem {
    let message =
        format!("names are not answered by packet, and guests are not redirected: {reason}");
    Problem::new(ProblemCode::PacketUnavailable, message).with_remedy(
        "use a kernel that accepts the packet programs; until then make the shim the executors' \
            nameserver, or set dns.intercept = \"sockets\"",
    )
}

fn failed(interface: &InterfaceInfo) -> Problem {
    let reason = interface.reason.as_deref().unwrap_or("the cause is unknown");
    let message = format!("attaching to interface {} failed: {reason}", interface.label());
    Problem::new(ProblemCode::InterfaceFailed, message)
        .with_remedy("the agent keeps retrying; the other interfaces are served meanwhile")
}

fn preceded(interface: &InterfaceInfo) -> Problem {
    let message = format!(
        "on interface {} other programs run before ours and may end the chain: {}",
        interface.label(),
        interface.preceded_by.join(", ")
    );
    Problem::new(ProblemCode::InterfacePreceded, message)
        .with_remedy("let them return TCX_NEXT (TC_ACT_UNSPEC), or attach them after ours")
        .without_degrading()
}

/// One problem for all interfaces of a node whose replies pass our egress by.
fn bypassed(interfaces: &[InterfaceInfo]) -> Option<Problem> {
    let names_only =
        |at: &&InterfaceInfo| at.names == ServedBy::Packet && at.connects == ServedBy::None;
    let affected: Vec<_> = interfaces.iter().filter(names_only).collect();
    let reason = affected.first()?.reason.as_deref().unwrap_or("replies pass our egress by");
    let message = format!(
        "{} gets names only, since {reason}: connects of guests are not redirected there",
        count(affected.len(), "interface")
    );
    let problem = Problem::new(ProblemCode::EgressBypassed, message).with_remedy(
        "containers with attached cgroups are not affected; run guests on a node without host \
            routing by bpf_redirect_peer",
    );
    Some(problem.without_degrading())
}

fn flows_full() -> Problem {
    let message = "the table of guests' flows is full: new connects of guests are refused";
    Problem::new(ProblemCode::FlowsFull, message.to_owned()).with_remedy(
        "established connections are not affected; `redirector status` names the interfaces with \
            most flows; spread guests over more nodes",
    )
}

/// The interface has nine tenths of the flows that it may have.
fn near_limit(interface: &InterfaceInfo) -> Option<Problem> {
    let FlowsInfo { open, limit, .. } = interface.flows?;
    let is_near = limit > 0 && open * 10 >= limit * 9;
    is_near.then(|| {
        let message = format!(
            "the guest of interface {} has {open} connections open: from {limit} on new ones are \
                refused",
            interface.label()
        );
        Problem::new(ProblemCode::InterfaceNearLimit, message)
            .with_remedy(
                "let it reuse or close connections, or run fewer workloads behind one interface; \
                    other guests are not affected",
            )
            .without_degrading()
    })
}

fn interface_over_limit(interfaces: &[InterfaceInfo]) -> Problem {
    let mut refusing: Vec<_> =
        interfaces.iter().filter(|at| at.flows.is_some_and(|flows| flows.refused > 0)).collect();
    refusing.sort_by_key(|at| std::cmp::Reverse(at.flows.map(|flows| flows.refused)));
    const SHOWN: usize = 3;
    let names: Vec<_> = refusing.iter().take(SHOWN).map(|at| at.label()).collect();
    let most = match names.as_slice() {
        [] => String::new(),
        names => format!(" (most refusals so far: {})", names.join(", ")),
    };
    let message =
        format!("a guest's interface has too many flows: its new connects are refused{most}");
    let problem = Problem::new(ProblemCode::InterfaceOverLimit, message);
    problem.with_remedy("other guests are not affected; see what this one does").without_degrading()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str) -> InterfaceInfo {
        InterfaceInfo {
            index: 7,
            name: Some(name.into()),
            kind: "veth".into(),
            names: ServedBy::Packet,
            connects: ServedBy::Packet,
            failed: false,
            reason: None,
            hook: Some("tcx".into()),
            programs: Vec::new(),
            reattached: 0,
            preceded_by: Vec::new(),
            flows: None,
        }
    }

    fn with_flows(name: &str, open: u64, refused: u64) -> InterfaceInfo {
        let flows = FlowsInfo { open, half_open: 0, refused, limit: 16384 };
        InterfaceInfo { flows: Some(flows), ..interface(name) }
    }

    fn found(packet: &PacketInfo, pressure: Pressure) -> Vec<(ProblemCode, bool)> {
        let problems = of_packets(packet, pressure);
        problems.iter().map(|problem| (problem.code, problem.degrades)).collect()
    }

    #[test]
    fn an_interface_that_is_nearly_full_is_named() {
        let interfaces = vec![with_flows("a", 14_745, 0), with_flows("vm7", 14_746, 0)];
        let packet = PacketInfo { interfaces, ..PacketInfo::default() };
        let problems = of_packets(&packet, Pressure::default());
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!((problem.code, problem.degrades), (ProblemCode::InterfaceNearLimit, false));
        assert!(problem.message.contains("vm7 has 14746"), "{}", problem.message);
    }

    #[test]
    fn the_interfaces_that_refuse_most_are_named() {
        let interfaces = vec![with_flows("a", 0, 1), interface("b"), with_flows("c", 0, 9)];
        let packet = PacketInfo { interfaces, ..PacketInfo::default() };
        let pressure = Pressure { interface_over_limit: true, ..Pressure::default() };
        let problems = of_packets(&packet, pressure);
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(problem.message.ends_with("(most refusals so far: c, a)"), "{}", problem.message);
    }

    #[test]
    fn each_fault_of_an_interface_is_named() {
        let calm = Pressure::default();
        let healthy = PacketInfo { interfaces: vec![interface("a")], ..PacketInfo::default() };
        assert_eq!(found(&healthy, calm), []);
        let faulty = PacketInfo {
            interfaces: vec![
                InterfaceInfo { failed: true, names: ServedBy::None, ..interface("b") },
                InterfaceInfo { preceded_by: vec!["tcx ingress: ID 17".into()], ..interface("c") },
                InterfaceInfo { connects: ServedBy::None, ..interface("d") },
                InterfaceInfo { connects: ServedBy::None, ..interface("e") },
            ],
            ..PacketInfo::default()
        };
        assert_eq!(
            found(&faulty, calm),
            [
                (ProblemCode::InterfaceFailed, true),
                (ProblemCode::InterfacePreceded, false),
                (ProblemCode::EgressBypassed, false),
            ]
        );
        let refused = PacketInfo { unavailable: Some("too old".into()), ..faulty };
        assert_eq!(found(&refused, calm), [(ProblemCode::PacketUnavailable, true)]);
        let pressed = Pressure { flows_full: true, interface_over_limit: true };
        assert_eq!(
            found(&healthy, pressed),
            [(ProblemCode::FlowsFull, true), (ProblemCode::InterfaceOverLimit, false)]
        );
    }
}
