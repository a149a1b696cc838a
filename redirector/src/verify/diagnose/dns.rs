//! Why the name was not answered with the virtual address.

use std::net::{IpAddr, SocketAddr};

use super::facts::Facts;
use crate::verify::{
    candidates::search_list,
    cause_code::CauseCode,
    causes::loopback_resolver,
    probe::{DnsResult, IoFailure},
    report::Finding,
};

pub(super) fn diagnose_dns(seen: &DnsResult, facts: &Facts<'_>) -> (String, Option<Finding>) {
    let vip = |address: &IpAddr| {
        [facts.before.vip.ipv4.map(IpAddr::V4), facts.before.vip.ipv6.map(IpAddr::V6)]
            .contains(&Some(*address))
    };
    match seen {
        DnsResult::Hosts { address } if vip(address) => {
            (format!("{address}, from the executor's /etc/hosts"), None)
        }
        DnsResult::Hosts { address } => {
            let cause = format!(
                "the executor's /etc/hosts has {address} for {}, so DNS is never asked",
                facts.name
            );
            let next = "remove that line (Docker: --add-host; Kubernetes: hostAliases)";
            (
                format!("{address}, from the executor's /etc/hosts"),
                Some(Finding::new(CauseCode::HostsEntry, cause, next)),
            )
        }
        DnsResult::NoServer => {
            let cause = "the executor's /etc/resolv.conf names no nameserver";
            (
                "no nameserver".into(),
                Some(Finding::new(CauseCode::NoNameserver, cause, "make the shim its nameserver")),
            )
        }
        DnsResult::Answer { server, addresses, code, milliseconds } => {
            let answer = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let answer =
                if answer.is_empty() { format!("{code} without an address") } else { answer };
            let other = facts.asked.filter(|asked| asked.name != facts.name);
            let own = facts.before.source.as_ref();
            let name = other.map(|asked| format!(", as {}", asked.name)).unwrap_or_default();
            let detail = format!("{answer}, from {} in {milliseconds} ms{name}", server.ip());
            let finding = match addresses.first() {
                Some(address) if vip(address) => other.and_then(|asked| {
                    let own = own.filter(|_| facts.wanted == facts.name);
                    search_list(facts.name, asked, own)
                }),
                found => other
                    .filter(|asked| asked.name != facts.wanted)
                    .and_then(|asked| search_list(facts.name, asked, own))
                    .or_else(|| Some(wrong_answer(found, code, *server, facts))),
            };
            (detail, finding)
        }
        DnsResult::Failed { server, why } => {
            (format!("{}: {}", server.ip(), why.label()), Some(no_answer(*server, why, facts)))
        }
    }
}

fn wrong_answer(
    found: Option<&IpAddr>,
    code: &str,
    server: SocketAddr,
    facts: &Facts<'_>,
) -> Finding {
    let ours = facts.listen.contains(&server);
    match found {
        Some(address) if (facts.in_pool)(*address) => {
            let cause = format!(
                "{address} is not the virtual address of {}: the answer is stale, or from \
                    another agent",
                facts.before_name()
            );
            Finding::new(
                CauseCode::OtherVip,
                cause,
                "is a second agent, or a cache of DNS answers, between the executor and the shim?",
            )
        }
        Some(address)
            if facts.before.backends.iter().any(|backend| backend.address == *address) =>
        {
            let what = format!(
                "answers {address}, the load balancer's own address, so connects are not redirected"
            );
            Finding { code: CauseCode::RealAddress, ..not_the_shim(server, &what, facts) }
        }
        Some(address) => not_the_shim(
            server,
            &format!("answers {address}, which is not a virtual address"),
            facts,
        ),
        None if ours && code == "SERVFAIL" => {
            let cause = "the shim does not have the name, and its upstream does not answer";
            Finding::new(
                CauseCode::NotLive,
                cause,
                "`redirector status` shows whether the route is live, and the state of the \
                    upstreams",
            )
        }
        None if ours => {
            let cause = format!("the shim does not answer {}: its route is not live", facts.name);
            Finding::new(
                CauseCode::NotLive,
                cause,
                "`redirector route show` and `redirector status` show why",
            )
        }
        None => not_the_shim(server, &format!("answers {code}"), facts),
    }
}

fn no_answer(server: SocketAddr, why: &IoFailure, facts: &Facts<'_>) -> Finding {
    let failure = why.label();
    if facts.listen.contains(&server) {
        if !facts.agent {
            let cause =
                format!("no agent runs, so DNS at {} is not answered ({failure})", server.ip());
            return Finding::new(
                CauseCode::AgentDead,
                cause,
                "start it with `redirector run`; connects to virtual addresses still \
                    work",
            );
        }
        let cause = format!(
            "the shim at {} can't be reached from the executor's network ({failure})",
            server.ip()
        );
        let next = "does a network policy or firewall block port 53, or does the executor \
            lack a route to it?";
        return Finding::new(CauseCode::ShimUnreachable, cause, next);
    }
    if server.ip().is_loopback() {
        let finding = loopback_resolver(server.ip(), facts.process);
        return Finding {
            cause: format!("{}; it does not answer ({failure})", finding.cause),
            ..finding
        };
    }
    not_the_shim(server, &format!("does not answer ({failure})"), facts)
}

/// The answer does not come from the shim.
fn not_the_shim(server: SocketAddr, what: &str, facts: &Facts<'_>) -> Finding {
    if server.ip().is_loopback() && !facts.listen.contains(&server) {
        let finding = loopback_resolver(server.ip(), facts.process);
        return Finding { cause: format!("{}; it {what}", finding.cause), ..finding };
    }
    let shim = facts
        .listen
        .iter()
        .map(|address| address.ip().to_string())
        .collect::<Vec<_>>()
        .join(" or ");
    let cause = format!(
        "{} {what}: it is not the shim ({shim}), and its traffic is not intercepted",
        server.ip()
    );
    let next = format!(
        "set dns.intercept = \"auto\", which answers mapped names by packet, or make {shim} the \
            executor's nameserver"
    );
    Finding::new(CauseCode::NotTheShim, cause, next)
}
