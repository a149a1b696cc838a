//! Problems of the agent or the datapath as a whole, each with its remedy.

use ipnet::IpNet;

use crate::{
    agent::{
        attach::manager::{AttachManager, PendingCgroup},
        interception::Interception,
        state::{agent_state::AgentState, config_state::ConfigState, healing::Healing},
        views::packet_problems,
    },
    control::{
        api::{InterceptWay, PacketInfo, Problem, ProblemCode},
        count,
    },
    dns::{Publisher, UpstreamHealth},
    route::import::old_wildcards_warning,
};

/// Problems of the agent or the datapath as a whole, whose packet part is `packet`.
pub(crate) fn of_agent(state: &AgentState, packet: &PacketInfo) -> Vec<Problem> {
    let publisher = state.reconciler.publisher();
    let mut problems: Vec<_> = state.reconciler.kernel_error().map(kernel).into_iter().collect();
    problems.extend(attachments(&state.attachments));
    problems.extend(healing(state.healing()));
    problems.extend(state.no_resets().map(no_resets));
    problems.extend(state.attachments.is_confined().then(confined));
    problems.extend(state.config.error().map(config_error));
    problems.extend(state.storage_error().map(unwritable));
    problems.extend(publisher.into_iter().flat_map(upstreams));
    problems.extend(publisher.and_then(refused_clients));
    problems.extend(interception(&state.interception));
    problems.extend(packet_problems::of_packets(packet, state.pressure()));
    problems.extend(old_wildcards(&state.config));
    problems.extend(restart_needed(&state.config));
    problems.extend(state.reconciler.datapath.former_pools().into_iter().map(former_pool));
    problems.extend(
        state.warnings().iter().map(|warning| {
            Problem::new(ProblemCode::StateFile, warning.clone()).without_degrading()
        }),
    );
    problems
}

fn kernel(error: &str) -> Problem {
    let message = format!("the kernel rejected a route update: {error}");
    Problem::new(ProblemCode::KernelUpdateFailed, message).with_remedy("the agent keeps retrying")
}

fn former_pool(pool: IpNet) -> Problem {
    let message = format!(
        "the pool was changed: connects to virtual addresses of the former one, {pool}, are still \
            redirected, as the routes were then, for an hour"
    );
    let remedy = "restart clients that keep addresses for ever, such as JVMs";
    Problem::new(ProblemCode::FormerPool, message).with_remedy(remedy).without_degrading()
}

fn attachments(manager: &AttachManager) -> Vec<Problem> {
    let not_attached = |message: String| Problem::new(ProblemCode::NotAttached, message);
    let mut problems = Vec::new();
    if let Some(error) = manager.error() {
        problems.push(not_attached(format!("attaching failed: {error}")).with_remedy(
            "the agent keeps retrying; run `redirector check` to see what is missing",
        ));
    } else if manager.attachments().is_empty() && manager.pending().is_empty() {
        let message = "no cgroup matches attach.cgroups, so nothing is redirected".to_owned();
        problems.push(not_attached(message).with_remedy(
            "set attach.cgroups, or start a container: the agent attaches when its cgroup appears",
        ));
    }
    for reason in pending_reasons(manager.pending()) {
        problems.push(
            not_attached(format!("attaching failed: {reason}")).with_remedy(
                "the agent keeps retrying; the other cgroups are redirected meanwhile",
            ),
        );
    }
    for path in manager.missing() {
        let message =
            format!("`{path}` in attach.cgroups is not a cgroup, so nothing in it is redirected");
        problems.push(
            not_attached(message)
                .with_remedy("correct it, or create it: the agent attaches when it appears"),
        );
    }
    problems
}

/// What other processes have removed, and whether it is restored.
fn healing(healing: &Healing) -> Vec<Problem> {
    if healing.is_unloaded() {
        let message = "an operator has unloaded everything: nothing is redirected".to_owned();
        return vec![
            Problem::new(ProblemCode::NotAttached, message).with_remedy("restart the agent"),
        ];
    }
    let mut problems = Vec::new();
    for error in healing.errors() {
        let message = format!("what another process removed cannot be restored: {error}");
        problems.push(
            Problem::new(ProblemCode::NotAttached, message)
                .with_remedy("the agent keeps retrying; `redirector check` shows what is missing"),
        );
    }
    if healing.pins_are_lost() {
        let message = "the bpf file system was unmounted: redirecting continues while this agent \
            runs, and ends with it"
            .to_owned();
        problems.push(Problem::new(ProblemCode::PinsLost, message).with_remedy(
            "mount it again (`mount -t bpf bpf /sys/fs/bpf`): the agent pins it again",
        ));
    }
    if let Some(last) = healing.last() {
        let times = count(healing.count() as usize, "restoration");
        let message = format!(
            "{} by another process, and restored at {:.0} ({times} since the start)",
            last.what, last.at
        );
        problems.push(
            Problem::new(ProblemCode::Restored, message)
                .with_remedy("find out which process it was: meanwhile, connects may have failed")
                .without_degrading(),
        );
    }
    problems
}

fn no_resets(cause: &str) -> Problem {
    let message = format!(
        "connects of pods to the pool that are not redirected get no reset: {cause}; most fail \
            after seconds"
    );
    Problem::new(ProblemCode::GuardWithoutResets, message)
        .with_remedy("load the modules nf_tables and nft_reject_ipv4, and restart the agent")
        .without_degrading()
}

fn confined() -> Problem {
    let message = "the agent's cgroup namespace hides all cgroups but its own, so no executor \
        beside it can be attached to";
    Problem::new(ProblemCode::CgroupsHidden, message.to_owned()).with_remedy(
        "run the agent in the host's cgroup namespace, or mount the host's /sys/fs/cgroup into its \
            container",
    )
}

/// The first reasons why cgroups are pending, and how many there are besides.
fn pending_reasons(pending: &[PendingCgroup]) -> Vec<String> {
    const MAX_REASONS: usize = 3;
    let mut reasons: Vec<String> =
        pending.iter().take(MAX_REASONS).map(|cgroup| cgroup.reason.clone()).collect();
    let more = pending.len() - reasons.len();
    if let Some(last) = reasons.last_mut().filter(|_| more > 0) {
        *last = format!("{last}; and at {} more", count(more, "cgroup"));
    }
    reasons
}

fn unwritable(error: &str) -> Problem {
    let message = format!("the state cannot be saved, so changes are refused: {error}");
    Problem::new(ProblemCode::StateUnwritable, message).with_remedy(
        "free space for agent.state_dir, or make it writable; the agent keeps retrying",
    )
}

fn config_error(error: &str) -> Problem {
    let message = format!(
        "the configuration file is invalid, and the previous configuration stays in force:\n{error}"
    );
    Problem::new(ProblemCode::ConfigError, message)
        .with_remedy("correct it; `redirector config check` reports all problems")
}

fn old_wildcards(config: &ConfigState) -> Option<Problem> {
    let warning = old_wildcards_warning(config.path(), &config.current().old_wildcards)?;
    Some(Problem::new(ProblemCode::OldWildcards, warning).without_degrading())
}

fn upstreams(publisher: &Publisher) -> Vec<Problem> {
    let failed = publisher.upstream_problem().map(|problem| {
        let message = format!("names without a route cannot be resolved: {problem}");
        Problem::new(ProblemCode::DnsFailed, message)
            .with_remedy("set dns.upstreams to servers that this host can reach")
    });
    let looping = publisher.upstreams().into_iter().filter(|upstream| upstream.loops);
    let looping = looping.map(|upstream| {
        let message = format!(
            "the DNS upstream {} forwards queries back to us: it is ejected",
            upstream.address
        );
        Problem::new(ProblemCode::DnsLoop, message).with_remedy(
            "let it forward to the real server, or set dns.upstreams to that server; the agent \
                checks again every few seconds",
        )
    });
    let zones = publisher.upstreams().into_iter().filter(|upstream| !upstream.loops);
    failed.into_iter().chain(looping).chain(zones.filter_map(looping_zones)).collect()
}

/// An upstream that forwards only some zones back to us.
fn looping_zones(upstream: UpstreamHealth) -> Option<Problem> {
    let UpstreamHealth { address, looping_zones, .. } = upstream;
    if looping_zones.is_empty() {
        return None;
    }
    let zones = looping_zones.join(", ");
    let message = format!(
        "the DNS upstream {address} forwards queries for {zones} back to us: names there without \
            a route get SERVFAIL unless another upstream answers"
    );
    let remedy = format!(
        "let it forward {zones} to the real server, or set dns.upstreams to that server; the agent \
            checks again every few seconds"
    );
    Some(Problem::new(ProblemCode::DnsLoop, message).with_remedy(remedy))
}

/// Worth knowing: an executor may be behind an interface that does not look like one.
fn refused_clients(publisher: &Publisher) -> Option<Problem> {
    let last = publisher.denied_client()?;
    let refused = publisher.counters().denied_clients;
    let message = format!(
        "DNS queries of clients that are not in dns.clients: {refused}, refused; the last came \
            from {last}"
    );
    let problem = Problem::new(ProblemCode::DnsClientsRefused, message);
    Some(problem.without_degrading().with_remedy(
        "if it is an executor, add its network to dns.clients; `redirector check` lists the \
            networks that count as local",
    ))
}

fn interception(interception: &Interception) -> Vec<Problem> {
    // Refused packet programs are a problem of their own.
    let failed = interception
        .disabled()
        .filter(|disabled| !disabled.by_config && interception.way() == InterceptWay::Sockets);
    let failed = failed.map(|disabled| {
        let message = format!("DNS of executors is not intercepted: {}", disabled.reason);
        Problem::new(ProblemCode::NotIntercepted, message).with_remedy(
            "remove the cause and restart the agent, or set dns.intercept = \"off\" and make the \
                shim the executors' nameserver",
        )
    });
    let paused = interception.pause().map(|pause| {
        let message = format!("DNS of executors is not intercepted {pause}");
        let problem = Problem::new(ProblemCode::NotIntercepted, message);
        problem.with_remedy("read in the log of the last agent why it ended")
    });
    let unserved = interception.unserved().into_iter().map(|resolver| {
        let message = format!(
            "queries to {resolver} are not intercepted: no address in dns.listen can answer for it"
        );
        Problem::new(ProblemCode::NotIntercepted, message)
            .with_remedy("add an address of its family to dns.listen")
    });
    failed.into_iter().chain(paused).chain(unserved).collect()
}

fn restart_needed(config: &ConfigState) -> Option<Problem> {
    let keys = config.restart_needed();
    (!keys.is_empty()).then(|| {
        let message = format!("new values of {} take effect after a restart", keys.join(", "));
        Problem::new(ProblemCode::RestartNeeded, message).without_degrading()
    })
}
