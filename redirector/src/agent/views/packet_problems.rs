//! Problems of the packet datapath, each with its remedy.

use crate::{
    agent::state::packet_pressure::Pressure,
    control::{
        api::{InterfaceInfo, PacketInfo, Problem, ProblemCode, ServedBy},
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
    problems.extend(pressure.interface_over_limit.then(interface_over_limit));
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

fn name(interface: &InterfaceInfo) -> String {
    interface.name.clone().unwrap_or_else(|| format!("number {}", interface.index))
}

fn failed(interface: &InterfaceInfo) -> Problem {
    let reason = interface.reason.as_deref().unwrap_or("the cause is unknown");
    let message = format!("attaching to interface {} failed: {reason}", name(interface));
    Problem::new(ProblemCode::InterfaceFailed, message)
        .with_remedy("the agent keeps retrying; the other interfaces are served meanwhile")
}

fn preceded(interface: &InterfaceInfo) -> Problem {
    let message = format!(
        "on interface {} other programs run before ours and may end the chain: {}",
        name(interface),
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
        "established connections are not affected; find the guest with most flows in \
            `redirector status -o json`, or spread guests over more nodes",
    )
}

fn interface_over_limit() -> Problem {
    let message = "a guest's interface has too many flows: its new connects are refused";
    let problem = Problem::new(ProblemCode::InterfaceOverLimit, message.to_owned());
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
        }
    }

    fn found(packet: &PacketInfo, pressure: Pressure) -> Vec<(ProblemCode, bool)> {
        let problems = of_packets(packet, pressure);
        problems.iter().map(|problem| (problem.code, problem.degrades)).collect()
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
