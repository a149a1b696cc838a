//! The status without an agent: what the pins, and the files that it left, still tell.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use ipnet::Ipv4Net;

use crate::{
    agent::{
        interception,
        views::{problems, route_view},
    },
    control::api,
    datapath::{self, DatapathError, PinnedStatus},
    route::SourceName,
};

/// The status from the pins below `bpffs` and the leases in `state_dir`, told because of `silence`:
/// why no agent answered. None when there are no pins.
///
/// # Errors
/// When the pins are another version's, or these privileges can't open them.
pub fn pinned_status(
    bpffs: &Path,
    state_dir: &Path,
    silence: api::Problem,
) -> Result<Option<api::Status>, DatapathError> {
    let Some(pinned) = datapath::inspect(bpffs)? else { return Ok(None) };
    let names = crate::state::leased(state_dir);
    let status = api::Status {
        events: None,
        version: api::VERSION,
        state: api::State::Degraded,
        summary: String::new(),
        problems: vec![silence],
        agent: None,
        config: None,
        dns: Some(dns(pinned.interception.clone())),
        routes: routes(&pinned, &names),
        datapath: Some(datapath_info(&pinned, bpffs, state_dir)),
    };
    Ok(Some(status.concluded()))
}

/// The status where another version's pins are, whose tables this binary can't read.
pub fn other_version(found: u32, ours: u32) -> api::Status {
    let remedy = if found > ours {
        "run the binary that made them, or a newer one; to end redirecting for good: `redirector \
            unload`"
    } else {
        "start this version's agent, which takes them over"
    };
    let message = format!(
        "the programs in the kernel are another version's: its tables have ABI {found}, this \
            binary has {ours}"
    );
    let status = api::Status {
        version: api::VERSION,
        state: api::State::Degraded,
        summary: String::new(),
        problems: vec![problems::general(api::OTHER_VERSION, message, remedy)],
        agent: None,
        config: None,
        dns: None,
        datapath: None,
        events: None,
        routes: Vec::new(),
    };
    status.concluded()
}

/// No agent runs.
pub fn agent_dead() -> api::Problem {
    problems::general(
        "agent_dead",
        "no agent runs: the routes' names do not resolve, and new addresses of their destinations \
            go unnoticed"
            .to_owned(),
        "start it (`redirector run`, or its service); to end redirecting for good: `redirector \
            unload`",
    )
}

/// An agent runs and does not answer.
pub fn agent_silent(error: &dyn std::error::Error, pid: Option<u32>) -> api::Problem {
    let who = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    problems::general(
        "agent_silent",
        format!("{error}{who}: it hangs or is stopped"),
        "look at its log, then restart it: connects go on being redirected meanwhile",
    )
}

/// No shim that answers; whose DNS was taken to it, and is not now.
fn dns(found: datapath::InterceptionStatus) -> api::DnsInfo {
    let why_not = if found.on {
        "no agent gives a sign of life, so that it goes where it was meant to"
    } else {
        "it was not when the agent ended"
    };
    let interception = interception::info(found, Err(why_not.to_owned()));
    api::DnsInfo { interception: Some(interception), ..api::DnsInfo::default() }
}

fn datapath_info(pinned: &PinnedStatus, bpffs: &Path, state_dir: &Path) -> api::DatapathInfo {
    let attachments: Vec<_> = pinned.attachments.iter().map(route_view::attachment).collect();
    let programs: std::collections::BTreeSet<_> =
        attachments.iter().flat_map(|at| at.programs.clone()).collect();
    api::DatapathInfo {
        abi: pinned.abi,
        pins: bpffs.to_owned(),
        pool_ipv4: pinned.pool.clone(),
        pool_ipv6: pinned.pool_ipv6.clone(),
        heartbeat_age_ms: pinned.heartbeat_age.map(route_view::milliseconds),
        programs: programs.into_iter().collect(),
        attachments,
        cgroup2_mount: datapath::cgroup2_mount().ok(),
        pending_attachments: Vec::new(),
        draining_cgroups: 0,
        foreign_programs: route_view::neighbours(bpffs, &pinned.attachments),
        upgraded: crate::agent::process::version_record::last_upgrade(state_dir),
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
            counters: Some(route_view::counters(route.counters)),
        }
    });
    let mut routes: Vec<_> = view.collect();
    routes
        .sort_by(|one, other| (&one.source, one.vip.index).cmp(&(&other.source, other.vip.index)));
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
