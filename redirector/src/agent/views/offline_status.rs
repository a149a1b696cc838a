//! The status without an agent: read from the pins, and the files that the agent left.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use ipnet::Ipv4Net;

use crate::{
    agent::{
        interception,
        process::version_record,
        state::packet_pressure::Pressure,
        views::{datapath_view, packet_problems, packet_view, route_view},
    },
    control::{
        self,
        api::{self, InterceptWay, Problem, ProblemCode},
    },
    datapath::{self, DatapathError, PinnedStatus},
    route::SourceName,
    state,
};

/// The status from the pins below `bpffs` and the leases in `state_dir`. `silence` is why no agent
/// answered. None when there are no pins.
///
/// # Errors
/// When the pins belong to another version, or these privileges cannot open them.
pub fn pinned_status(
    bpffs: &Path,
    state_dir: &Path,
    silence: Problem,
) -> Result<Option<api::Status>, DatapathError> {
    let Some(pinned) = datapath::inspect(bpffs)? else { return Ok(None) };
    let names = state::leased(state_dir);
    let datapath = datapath_info(&pinned, bpffs, state_dir);
    let mut problems = vec![silence];
    problems.extend(packet_problems::of_packets(&datapath.packet, Pressure::default()));
    let status = api::Status {
        problems,
        dns: Some(dns(&pinned)),
        routes: routes(&pinned, &names),
        datapath: Some(datapath),
        ..without_agent()
    };
    Ok(Some(status.concluded()))
}

/// The status when the pins belong to another version, whose tables this binary cannot read.
pub fn other_version(found: u32, ours: u32) -> api::Status {
    let remedy = if found > ours {
        "use the binary that loaded them, or a newer one; to stop redirecting: `redirector unload`"
    } else {
        "start this version's agent, which upgrades them in place"
    };
    let message = format!(
        "the programs in the kernel belong to another version: they have ABI {found}, this binary \
            has {ours}"
    );
    degraded(Problem::new(ProblemCode::OtherVersion, message).with_remedy(remedy)).concluded()
}

/// No agent runs.
pub fn agent_dead() -> Problem {
    let message = "no agent runs: the kernel keeps answering names by packet and redirecting, but \
        the shim answers nothing, and new addresses of the destinations go unnoticed";
    Problem::new(ProblemCode::AgentDead, message.to_owned()).with_remedy(
        "start it (`redirector run`, or its service); to stop redirecting: `redirector unload`",
    )
}

/// An agent runs and does not answer.
pub fn agent_silent(error: &dyn std::error::Error, pid: Option<u32>) -> Problem {
    let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    let message = format!("{error}{pid}: it hangs or is stopped");
    Problem::new(ProblemCode::AgentSilent, message)
        .with_remedy("read its log, then restart it: connects are still redirected meanwhile")
}

/// A status with one problem and nothing else.
fn degraded(problem: Problem) -> api::Status {
    api::Status { problems: vec![problem], ..without_agent() }
}

fn without_agent() -> api::Status {
    api::Status {
        version: api::VERSION,
        state: api::State::Degraded,
        summary: String::new(),
        problems: Vec::new(),
        agent: None,
        config: None,
        dns: None,
        datapath: None,
        events: None,
        routes: Vec::new(),
    }
}

/// No shim answers, but names are still answered by packet.
fn dns(pinned: &PinnedStatus) -> api::DnsInfo {
    let (status, names) = (pinned.interception.clone(), pinned.names);
    let (way, reason) = match (names.enabled, status.on) {
        (true, _) => (InterceptWay::Packets, None),
        (false, true) => (
            InterceptWay::Sockets,
            Some("the agent's heartbeat is stale, so queries go to their original server"),
        ),
        (false, false) => (InterceptWay::Off, Some("it was off when the agent ended")),
    };
    let interception = interception::info(status, way, reason.map(str::to_owned));
    api::DnsInfo { names: names.live, interception: Some(interception), ..api::DnsInfo::default() }
}

fn datapath_info(pinned: &PinnedStatus, bpffs: &Path, state_dir: &Path) -> api::DatapathInfo {
    let attachments: Vec<_> = pinned.attachments.iter().map(datapath_view::attachment).collect();
    let programs: BTreeSet<_> = attachments.iter().flat_map(|at| at.programs.clone()).collect();
    api::DatapathInfo {
        abi: pinned.abi,
        pins: bpffs.to_owned(),
        pool_ipv4: pinned.pool.clone(),
        pool_ipv6: pinned.pool_ipv6.clone(),
        heartbeat_age_ms: pinned.heartbeat_age.map(datapath_view::milliseconds),
        programs: programs.into_iter().collect(),
        attachments,
        cgroup2_mount: datapath::cgroup2_mount().ok(),
        pending_attachments: Vec::new(),
        uncovered: control::uncovered(&datapath_view::directories(&pinned.attachments)),
        source_ports: Vec::new(),
        pods: None,
        draining_cgroups: 0,
        foreign_programs: datapath_view::foreign_programs(bpffs, &pinned.attachments),
        upgraded: version_record::last_upgrade(state_dir),
        packet: packet_view::pinned(pinned),
    }
}

fn routes(pinned: &PinnedStatus, names: &BTreeMap<u32, SourceName>) -> Vec<api::RouteView> {
    let base = pinned.pool.parse::<Ipv4Net>().map_or(0, |pool| pool.network().to_bits());
    let view = pinned.routes.iter().map(|route| {
        let vip = api::VipView { ipv6: route.vip6, ..vip(route.vip, base) };
        api::RouteView {
            source: names.get(&vip.index).cloned(),
            vip,
            origin: None,
            definition: None,
            live: true,
            resolution: None,
            backends: route.backends.iter().cloned().map(route_view::backend).collect(),
            counters: Some(route.counters),
            answers: api::AnswerCounts { packet: route.answers, shim: 0 },
        }
    });
    let mut routes: Vec<_> = view.collect();
    routes.sort_by(|a, b| (&a.source, a.vip.index).cmp(&(&b.source, b.vip.index)));
    routes
}

fn vip(address: IpAddr, base: u32) -> api::VipView {
    match address {
        IpAddr::V4(vip) => {
            api::VipView { index: vip.to_bits().wrapping_sub(base), ipv4: Some(vip), ipv6: None }
        }
        IpAddr::V6(vip) => api::VipView { index: 0, ipv4: None, ipv6: Some(vip) },
    }
}
