//! What the agent tells of itself: its state in the shapes of the control API.

use std::{collections::HashMap, path::Path, time::Duration};

use crate::{
    agent::{event_loop::Owner, views::problems},
    backend::{Freshness, Resolved},
    control::api,
    datapath,
    dns::{Publisher, UpstreamHealth},
    error::error_chain,
    route::{EffectiveRoute, SourceName},
};

/// Everything.
pub(crate) fn status(owner: &Owner) -> api::Status {
    let status = api::Status {
        version: api::VERSION,
        state: api::State::Ok,
        summary: String::new(),
        problems: problems::all(owner),
        agent: Some(agent(owner)),
        config: Some(config(owner)),
        dns: owner.live.publisher.as_ref().map(|publisher| dns(owner, publisher)),
        datapath: Some(datapath(owner)),
        events: Some(owner.events_info()),
        routes: routes(owner),
    };
    status.concluded()
}

fn agent(owner: &Owner) -> api::AgentInfo {
    let uptime = jiff::Timestamp::now().duration_since(owner.started_at);
    api::AgentInfo {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: owner.started_at,
        uptime_seconds: uptime.as_secs().max(0).unsigned_abs(),
    }
}

fn config(owner: &Owner) -> api::ConfigInfo {
    api::ConfigInfo {
        path: owner.config_path.clone(),
        loaded_at: owner.loaded_at,
        error: owner.config_error.clone(),
        restart_needed_for: owner.restart_needed.clone(),
    }
}

fn dns(owner: &Owner, publisher: &Publisher) -> api::DnsInfo {
    let upstream = |at: UpstreamHealth| api::UpstreamInfo {
        address: at.address,
        ejected: at.ejected,
        loops: at.loops,
        queries: at.queries,
        failures: at.failures,
    };
    let upstreams = publisher.upstreams().into_iter().map(upstream).collect();
    let interception = Some(owner.interception_info());
    api::DnsInfo {
        listen: owner.listen.clone(),
        names: owner.live.published.len(),
        counters: publisher.counters().into(),
        upstreams,
        interception,
    }
}

fn datapath(owner: &Owner) -> api::DatapathInfo {
    let status = owner.live.datapath.status();
    api::DatapathInfo {
        abi: status.abi,
        pins: owner.at_start.agent.bpffs.clone(),
        pool_ipv4: owner.live.pool.ipv4.to_string(),
        pool_ipv6: owner.live.pool.ipv6.map(|range| range.to_string()),
        heartbeat_age_ms: Some(milliseconds(owner.beaten_at.elapsed())),
        programs: status.programs.into_iter().map(|program| program.name).collect(),
        attachments: owner.attached.list.iter().map(attachment).collect(),
        cgroup2_mount: datapath::cgroup2_mount().ok(),
        pending_attachments: owner
            .attached
            .waiting
            .iter()
            .map(|(cgroup, why)| api::PendingAttachment {
                cgroup: cgroup.clone(),
                reason: why.clone(),
            })
            .collect(),
        draining_cgroups: owner.live.datapath.draining(),
        foreign_programs: neighbours(&owner.at_start.agent.bpffs, &owner.attached.list),
        upgraded: crate::agent::process::version_record::last_upgrade(
            &owner.at_start.agent.state_dir,
        ),
    }
}

/// The programs of others beside those at `attached`. Some of many are enough to tell: whoever is
/// above one of them is above the others, too.
pub(crate) fn neighbours(
    bpffs: &Path,
    attached: &[datapath::Attachment],
) -> Vec<api::ForeignProgram> {
    const ASKED: usize = 32;
    let at = |cgroup: &Path| {
        let others = datapath::foreign_programs(bpffs, cgroup).unwrap_or_default().into_iter();
        let told = others.map(|datapath::ForeignProgram { hook, id, name, runs_first }| {
            api::ForeignProgram { cgroup: cgroup.to_owned(), hook, id, name, runs_first }
        });
        told.collect::<Vec<_>>()
    };
    attached.iter().filter_map(|at| at.cgroup.as_deref()).take(ASKED).flat_map(at).collect()
}

/// An attachment, which is live while its cgroup is the one that it was.
pub(crate) fn attachment(at: &datapath::Attachment) -> api::AttachmentInfo {
    let same = |path: &Path| {
        std::fs::metadata(path)
            .is_ok_and(|found| std::os::unix::fs::MetadataExt::ino(&found) == at.id)
    };
    let live = !at.programs.is_empty() && at.cgroup.as_deref().is_some_and(same);
    api::AttachmentInfo {
        cgroup: at.cgroup.clone(),
        cgroup_id: at.id,
        programs: at.programs.clone(),
        live,
    }
}

/// Every route, by source.
pub(crate) fn routes(owner: &Owner) -> Vec<api::RouteView> {
    let mut told = of_kernel(owner);
    owner
        .live
        .routes
        .iter()
        .map(|entry| view(owner, entry, told.remove(&entry.route.source)))
        .collect()
}

/// What the kernel tells of each route, as far as it can be read.
pub(crate) fn of_kernel(owner: &Owner) -> HashMap<SourceName, datapath::RouteStatus> {
    let live = &owner.live;
    let index = |entry: EffectiveRoute<'_>| {
        Some((live.leases.get(&entry.route.source)?, entry.route.source.clone()))
    };
    let mut routes: Vec<_> = live.routes.iter().filter_map(index).collect();
    routes.sort_unstable_by_key(|(index, _)| *index);
    let (indices, sources): (Vec<u32>, Vec<SourceName>) = routes.into_iter().unzip();
    let told = live.datapath.routes(&indices).unwrap_or_else(|error| {
        tracing::warn!("failed to read counters and health: {}", error_chain(&error));
        Vec::new()
    });
    sources.into_iter().zip(told).collect()
}

/// One route.
pub(crate) fn route(owner: &Owner, source: &SourceName) -> Option<api::RouteView> {
    let live = &owner.live;
    let told = live.leases.get(source).and_then(|index| live.datapath.routes(&[index]).ok()?.pop());
    live.routes.get(source).map(|entry| view(owner, entry, told))
}

pub(crate) fn view(
    owner: &Owner,
    entry: EffectiveRoute<'_>,
    told: Option<datapath::RouteStatus>,
) -> api::RouteView {
    let (live, source) = (&owner.live, &entry.route.source);
    let index = live.leases.get(source);
    let (counters, backends) = told.map(|told| (told.counters, told.backends)).unzip();
    api::RouteView {
        source: Some(source.clone()),
        vip: api::VipView {
            index: index.unwrap_or_default(),
            ipv4: index.and_then(|index| live.pool.ipv4_at(index)),
            ipv6: index.and_then(|index| live.pool.ipv6_at(index)),
        },
        origin: Some(entry.origin),
        definition: Some(entry.route.into()),
        live: live.serves(source),
        resolution: live.follower.current().get(source).map(|resolved| resolution(resolved)),
        backends: backends.into_iter().flatten().map(backend).collect(),
        counters: counters.map(self::counters),
    }
}

fn resolution(resolved: &Resolved) -> api::Resolution {
    let (state, error) = match &resolved.freshness {
        Freshness::Literal => (api::ResolutionState::Literal, None),
        Freshness::Fresh => (api::ResolutionState::Fresh, None),
        Freshness::Stale { error } => (api::ResolutionState::Stale, Some(error.clone())),
        Freshness::Unresolved { error } => (api::ResolutionState::Unresolved, error.clone()),
    };
    let learned = !matches!(state, api::ResolutionState::Unresolved);
    let expires = matches!(state, api::ResolutionState::Fresh | api::ResolutionState::Stale);
    api::Resolution {
        state,
        error,
        resolved_at: learned.then_some(resolved.resolved_at),
        ttl_seconds: expires.then_some(resolved.ttl.as_secs()),
    }
}

/// A backend in the API's shape.
pub(crate) fn backend(status: datapath::BackendStatus) -> api::BackendView {
    let c = status.counters;
    api::BackendView {
        address: status.address,
        state: if status.ejected.is_some() {
            api::BackendState::Ejected
        } else {
            api::BackendState::Eligible
        },
        failures: status.ejected.map_or(0, |ejection| ejection.failures.into()),
        retry_in_ms: status.ejected.map(|ejection| ejection.retry_in_ms),
        counters: Some(api::BackendCounters {
            started: c.started,
            established: c.established,
            refused: c.refused,
            timed_out: c.timed_out,
            unreachable: c.unreachable,
            aborted: c.aborted,
            unsent: c.unsent,
            closed: c.closed,
            connect_ns: c.connect_ns,
            srtt_us: c.srtt_us,
        }),
    }
}

/// The datapath's counters in the API's shape.
pub(crate) fn counters(c: datapath::RouteCounters) -> api::Counters {
    api::Counters {
        started: c.started,
        established: c.established,
        refused: c.refused,
        timed_out: c.timed_out,
        unreachable: c.unreachable,
        aborted: c.aborted,
        unsent: c.unsent,
        closed: c.closed,
        denied: c.denied,
        passed: c.passed,
        all_ejected: c.desperate,
        connect_ns: c.connect_ns,
        rx_bytes: c.rx_bytes,
        tx_bytes: c.tx_bytes,
        retransmitted: c.retransmitted,
        source_ip_failed: c.source_failed,
        srtt_us: c.srtt_us,
        latency: c.latency,
    }
}

/// Whole milliseconds.
pub(crate) fn milliseconds(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
