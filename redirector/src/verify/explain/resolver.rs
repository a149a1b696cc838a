//! How the process resolves the name.

use std::net::{IpAddr, Ipv4Addr};

use super::{explainer::Explainer, facts::ExplainFacts};
use crate::{
    control::api::{InterceptWay, ProblemCode},
    verify::{
        cause_code::CauseCode,
        causes::{loopback_resolver, proxy},
        lookups::covering,
        process::Process,
        report::Finding,
    },
};

/// The programs treat the agent as dead after this long.
const STALE_MS: u64 = 2000;

/// How the name, which has this virtual address, is resolved by the process.
pub(super) fn trace_resolver(
    out: &mut Explainer,
    name: (&str, Option<Ipv4Addr>),
    known: &ExplainFacts<'_>,
) {
    if let Some(process) = known.process {
        trace_process(out, process, name, known);
    }
    let agent = known.status.agent.as_ref();
    if agent.is_none() {
        let code = known
            .status
            .problems
            .iter()
            .find(|problem| problem.code == ProblemCode::AgentSilent)
            .map_or(CauseCode::AgentDead, |_| CauseCode::AgentSilent);
        let cause = "no agent answers: the shim does not answer the name, but the kernel does \
            where names are answered by packet; connects to its virtual address are still \
            redirected";
        out.findings.push(Finding::new(
            code,
            cause,
            "start or restart the agent: `redirector run`, or its service",
        ));
    }
    let age = known.status.datapath.as_ref().and_then(|datapath| datapath.heartbeat_age_ms);
    if let Some(age) = age.filter(|&age| age > STALE_MS && agent.is_some()) {
        let cause = format!(
            "the agent's last heartbeat is {age} ms old: the programs treat the agent as dead and \
                stop intercepting DNS at sockets"
        );
        out.findings.push(Finding::new(
            CauseCode::StaleHeartbeat,
            cause,
            "check the agent's log, then restart it",
        ));
    }
    if let Some(problem) =
        known.status.problems.iter().find(|problem| problem.code == ProblemCode::ConfigError)
    {
        let next = problem.remedy.clone().unwrap_or_default();
        out.findings.push(Finding::note(CauseCode::ConfigError, problem.message.clone(), next));
    }
}

fn trace_process(
    out: &mut Explainer,
    process: &Process,
    (name, vip): (&str, Option<Ipv4Addr>),
    known: &ExplainFacts<'_>,
) {
    let describe = |server: &IpAddr| {
        format!(
            "{server}{}",
            if is_intercepted(*server, process, known) { " (intercepted)" } else { "" }
        )
    };
    let servers = process.nameservers.iter().map(describe).collect::<Vec<_>>().join(", ");
    let network = if process.host_network { "this node's network" } else { "a network of its own" };
    out.stage(
        "process",
        format!("{} (pid {}) in {network}, nameserver {servers}", process.command, process.pid),
    );
    if let Some((variable, value)) = process.proxy_for(name) {
        out.findings.push(proxy(variable, value, name));
    }
    if let Some(address) = process.hosts.address(name) {
        if vip.map(IpAddr::V4) != Some(address) {
            let cause = format!("its /etc/hosts has {address} for {name}, so DNS is never asked");
            out.findings.push(Finding::new(
                CauseCode::HostsEntry,
                cause,
                "remove that line (Docker: --add-host; Kubernetes: hostAliases)",
            ));
        }
        return;
    }
    let shim = |server: &IpAddr| known.shim.iter().any(|address| address.ip() == *server);
    match process.nameservers.first() {
        None => out.findings.push(Finding::new(
            CauseCode::NoNameserver,
            "its /etc/resolv.conf names no nameserver",
            "make the shim its nameserver, or set dns.intercept",
        )),
        Some(server) if shim(server) || is_intercepted(*server, process, known) => {}
        Some(server) if server.is_loopback() => {
            out.findings.push(trace_local_resolver(*server, process, known));
        }
        Some(server) => {
            let interception = known.status.dns.as_ref().and_then(|dns| dns.interception.as_ref());
            let why_not = interception
                .and_then(|interception| interception.reason.as_deref())
                .unwrap_or("it is not in dns.intercept_resolvers");
            // The server may pass the name on to the shim, so this does not say that it fails.
            out.findings.push(Finding::note(
                CauseCode::OtherResolver,
                format!(
                    "its nameserver {server} is not the shim, and queries to it are not \
                    intercepted: {why_not}"
                ),
                "`redirector verify --pid` sends it a real query",
            ));
        }
    }
}

/// A resolver in an attached cgroup has its own queries treated as the job's are.
fn trace_local_resolver(server: IpAddr, process: &Process, known: &ExplainFacts<'_>) -> Finding {
    let finding = loopback_resolver(server, Some(process));
    let cgroup = process.local_resolver.as_ref().and_then(|resolver| resolver.cgroup.as_deref());
    let attached = known.status.datapath.as_ref().zip(cgroup);
    if attached.and_then(|(datapath, at)| covering(&datapath.attachments, at)).is_none() {
        return finding;
    }
    let cause = format!(
        "{}, which is attached: if it asks the shim or an intercepted nameserver, it gets the \
            virtual address",
        finding.cause
    );
    Finding::note(finding.code, cause, "`redirector verify --pid` sends it a real query")
}

/// Whether `process` gets the answers of sources from `server`.
fn is_intercepted(server: IpAddr, process: &Process, known: &ExplainFacts<'_>) -> bool {
    let Some(interception) = known.status.dns.as_ref().and_then(|dns| dns.interception.as_ref())
    else {
        return false;
    };
    let is_listed = || interception.resolvers.iter().any(|resolver| resolver.address == server);
    interception.on
        && match interception.way {
            // What a resolver on the loopback of a container asks in turn is answered, too.
            InterceptWay::Packets => true,
            InterceptWay::Sockets => is_listed() && (process.host_network || !server.is_loopback()),
            InterceptWay::Off => false,
        }
}
