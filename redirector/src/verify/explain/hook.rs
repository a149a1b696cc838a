//! Which hook applies to the process, and which foreign programs share it.

use std::path::Path;

use super::{explainer::Explainer, facts::ExplainFacts};
use crate::{
    control::api::{RouteView, ServedBy},
    verify::{
        cause_code::CauseCode,
        causes::{guest_kernel, not_attached, wrong_cgroup},
        lookups::covering,
        report::Finding,
    },
};

/// Which hook applies to the process, and what else is there.
pub(super) fn trace_hook(out: &mut Explainer, known: &ExplainFacts<'_>) {
    if let Some(interface) = known.interface {
        return trace_interface(out, interface, known);
    }
    if let Some(guest) = known.process.and_then(guest_kernel) {
        out.findings.push(guest);
    }
    let attachments = known
        .status
        .datapath
        .as_ref()
        .map(|datapath| datapath.attachments.as_slice())
        .unwrap_or_default();
    let live: Vec<_> = attachments.iter().filter(|at| at.live).collect();
    let names = live.iter().map(|at| {
        at.cgroup
            .as_ref()
            .map_or_else(|| format!("cgroup {}", at.cgroup_id), |path| path.display().to_string())
    });
    if live.is_empty() {
        out.stage("hook", "attached to no cgroup");
        out.findings.push(not_attached());
    } else if let Some(process) = known.process {
        let cgroup = process
            .cgroup
            .as_ref()
            .map_or_else(|| "its cgroup".to_owned(), |path| path.display().to_string());
        match process.cgroup.as_deref().and_then(|cgroup| covering(attachments, cgroup)) {
            Some(at) => out.stage(
                "hook",
                format!(
                    "{cgroup} is covered by {}",
                    at.cgroup.as_deref().unwrap_or(Path::new("?")).display()
                ),
            ),
            None => {
                out.stage(
                    "hook",
                    format!(
                        "{cgroup} is covered by none of {}",
                        names.collect::<Vec<_>>().join(", ")
                    ),
                );
                out.findings.push(wrong_cgroup(&cgroup));
            }
        }
    } else {
        out.stage("hook", format!("applies at and below {}", names.collect::<Vec<_>>().join(", ")));
    }
    for other in known.others {
        out.findings.push(Finding::note(
            CauseCode::ForeignProgram,
            format!(
                "a foreign program is on the hook {} too: {} (ID {})",
                other.hook,
                other.name.as_deref().unwrap_or("unnamed"),
                other.id
            ),
            "it sees connects before or after ours, and may refuse or rewrite them; `bpftool \
                prog show` shows its owner",
        ));
    }
}

/// What the packets of a guest at this interface meet.
fn trace_interface(out: &mut Explainer, name: &str, known: &ExplainFacts<'_>) {
    let packet = known.status.datapath.as_ref().map(|datapath| &datapath.packet);
    let all = packet.map(|packet| packet.interfaces.as_slice()).unwrap_or_default();
    let Some(at) = all.iter().find(|at| at.name.as_deref() == Some(name)) else {
        out.stage("hook", format!("no packet program is attached to {name}"));
        let why = packet.and_then(|packet| packet.unavailable.clone());
        let why = why.unwrap_or_else(|| "attach.interfaces does not select it".to_owned());
        return out.findings.push(not_served(name, &why));
    };
    let hook = at.hook.as_deref().unwrap_or("not attached");
    out.stage(
        "hook",
        format!(
            "{name} ({hook}): names are answered by {}, connects are redirected by {}",
            at.names.as_str(),
            at.connects.as_str()
        ),
    );
    if at.connects != ServedBy::Packet {
        let why = match (at.connects, &at.reason) {
            (_, Some(reason)) => reason.as_str(),
            (ServedBy::Cgroup, None) => "it is one of the host's own, not a guest's",
            (_, None) => "TCP is not redirected there",
        };
        out.findings.push(not_served(name, why));
    }
    if !at.preceded_by.is_empty() {
        let cause = format!("programs of others run before ours: {}", at.preceded_by.join(", "));
        let next = "they may end the chain, and ours then see no packet";
        out.findings.push(Finding::note(CauseCode::ForeignProgram, cause, next));
    }
}

fn not_served(name: &str, why: &str) -> Finding {
    let cause = format!("connects of a guest at {name} are not redirected: {why}");
    let next = "`redirector status -o json` lists every interface with its reason; \
        attach.interfaces selects them";
    Finding::new(CauseCode::InterfaceNotServed, cause, next)
}

/// What a guest does not get of a route.
pub(super) fn trace_guest_limits(out: &mut Explainer, route: &RouteView, known: &ExplainFacts<'_>) {
    let Some(raw) = route.definition.as_ref().filter(|_| known.interface.is_some()) else { return };
    if raw.source_ips.as_ref().is_some_and(|addresses| !addresses.is_empty()) {
        out.findings.push(Finding::note(
            CauseCode::GuestLimits,
            "the route's source_ips do not apply to guests: a redirected packet keeps the guest's \
                source, and this host's masquerade or SNAT rule chooses the address it leaves with",
            "let that rule choose one of the route's source_ips (nft: `snat to ADDRESS`)",
        ));
    }
    if raw.idle_timeout.is_some() {
        out.findings.push(Finding::note(
            CauseCode::GuestLimits,
            "the route's idle_timeout does not apply to guests: TCP keepalive is an option of the \
                guest's own sockets",
            "set net.ipv4.tcp_keepalive_time in the guest",
        ));
    }
}
