//! The status of the running agent.

use crate::{
    agent::{
        process::version_record,
        state::agent_state::AgentState,
        views::{
            agent_problems, datapath_view, packet_view,
            route_problems::{self, HostSearchList},
            route_view,
        },
    },
    control::api,
    datapath,
    dns::{Publisher, UpstreamHealth},
    net::SearchList,
};

/// Everything that an operator asks first.
pub(crate) fn status(state: &AgentState) -> api::Status {
    let routes = route_view::all(&state.reconciler);
    let packet = packet_view::packet(state);
    let mut problems = agent_problems::of_agent(state, &packet);
    let search = HostSearchList::new(SearchList::of_host);
    problems.extend(routes.iter().flat_map(|route| route_problems::of_route(route, &search)));
    problems.sort_by_key(|problem| !problem.degrades);
    let status = api::Status {
        version: api::VERSION,
        state: api::State::Ok,
        summary: String::new(),
        problems,
        agent: Some(agent(state)),
        config: Some(config(state)),
        dns: Some(dns(state)),
        datapath: Some(datapath(state, packet)),
        events: Some(state.events.info(&state.reconciler.datapath)),
        routes,
    };
    status.concluded()
}

fn agent(state: &AgentState) -> api::AgentInfo {
    let uptime = jiff::Timestamp::now().duration_since(state.started_at());
    api::AgentInfo {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: state.started_at(),
        uptime_seconds: uptime.as_secs().max(0).unsigned_abs(),
        standby: state.successor().map(|at| api::StandbyInfo { pid: at.pid, ready: at.is_ready }),
    }
}

fn config(state: &AgentState) -> api::ConfigInfo {
    let config = &state.config;
    api::ConfigInfo {
        path: config.path().to_owned(),
        loaded_at: config.loaded_at(),
        error: config.error().map(str::to_owned),
        restart_needed_for: config.restart_needed().to_vec(),
    }
}

fn dns(state: &AgentState) -> api::DnsInfo {
    let publisher = state.reconciler.publisher();
    let upstream = |at: UpstreamHealth| api::UpstreamInfo {
        address: at.address,
        ejected: at.ejected,
        loops: at.loops,
        looping_zones: at.looping_zones,
        queries: at.queries,
        failures: at.failures,
    };
    api::DnsInfo {
        listen: state.listen().to_vec(),
        names: state.reconciler.published_count(),
        counters: publisher.map(|shim| shim.counters().into()).unwrap_or_default(),
        upstreams: publisher.into_iter().flat_map(Publisher::upstreams).map(upstream).collect(),
        interception: Some(interception(state)),
    }
}

fn interception(state: &AgentState) -> api::InterceptionInfo {
    let info = state.interception.info(&state.reconciler.datapath);
    if info.on && info.way == api::InterceptWay::Packets && !state.interfaces.is_on() {
        let reason = Some("attach.interfaces is \"off\"".to_owned());
        return api::InterceptionInfo { on: false, reason, ..info };
    }
    info
}

fn datapath(state: &AgentState, packet: api::PacketInfo) -> api::DatapathInfo {
    let (reconciler, attachments) = (&state.reconciler, state.attachments.attachments());
    let (status, pool) = (reconciler.datapath.status(), reconciler.pool());
    let agent = &state.config.at_start().agent;
    let pending = state.attachments.pending().iter();
    api::DatapathInfo {
        abi: status.abi,
        pins: agent.bpffs.clone(),
        pool_ipv4: pool.ipv4.to_string(),
        pool_ipv6: pool.ipv6.map(|range| range.to_string()),
        heartbeat_age_ms: Some(datapath_view::milliseconds(state.heartbeat_at().elapsed())),
        programs: status.programs.into_iter().map(|program| program.name).collect(),
        attachments: attachments.iter().map(datapath_view::attachment).collect(),
        cgroup2_mount: datapath::cgroup2_mount().ok(),
        pending_attachments: pending
            .map(|cgroup| api::PendingAttachment {
                cgroup: cgroup.path.clone(),
                reason: cgroup.reason.clone(),
            })
            .collect(),
        uncovered: Vec::new(),
        source_ports: Vec::new(),
        pods: state.pods.view(&state.config.current().attach.pods),
        draining_cgroups: reconciler.datapath.draining(),
        foreign_programs: datapath_view::foreign_programs(&agent.bpffs, attachments),
        upgraded: version_record::last_upgrade(&agent.state_dir),
        packet,
    }
}
