//! Why the connect failed.

use super::facts::Facts;
use crate::verify::{
    cause_code::CauseCode,
    causes::{no_backends, not_attached, port_not_listed, unusable_family, wrong_cgroup},
    lookups::ports,
    probe::{ConnectResult, IoFailure},
    report::Finding,
};

pub(super) fn diagnose_connect(
    seen: &ConnectResult,
    facts: &Facts<'_>,
) -> (String, Option<Finding>) {
    match seen {
        ConnectResult::Connected { to, local, milliseconds, .. } => {
            let through = facts.tried();
            (format!("{to} from {local} in {milliseconds} ms, through {through}"), None)
        }
        ConnectResult::Failed { to, why, milliseconds } => (
            format!("{to}: {} after {milliseconds} ms", why.label()),
            Some(connect_failure(why, facts)),
        ),
    }
}

fn connect_failure(why: &IoFailure, facts: &Facts<'_>) -> Finding {
    let (started, denied, passed) = (
        facts.grew(|counters| counters.started),
        facts.grew(|counters| counters.denied),
        facts.grew(|counters| counters.passed),
    );
    if facts.before.backends.is_empty() && (denied + passed > 0 || started == 0 && facts.covered) {
        return no_backends(facts.before);
    }
    let unlisted = ports(facts.before).is_some_and(|ports| ports.destination(facts.port).is_none());
    if unlisted && (denied > 0 || facts.covered) {
        return port_not_listed(facts.before, facts.port);
    }
    if denied + passed > 0
        && let Some(finding) = unusable_family(facts.before)
    {
        return finding;
    }
    if denied > 0 {
        let cause = format!(
            "the datapath refused it: the route lists no port {}, or has no backend",
            facts.port
        );
        return Finding::new(
            CauseCode::Denied,
            cause,
            "`redirector route show` lists its ports and backends",
        );
    }
    if started == 0 {
        return hook_missed(why, facts);
    }
    let (tried, source) = (facts.tried(), facts.source.label());
    match why {
        IoFailure::TimedOut => {
            let allowed = if facts.source.wrong() {
                format!(
                    "connect to {tried} timed out, and connects do not use the route's source \
                        address: {source}"
                )
            } else {
                format!(
                    "connect to {tried} timed out: is this node's egress address on the load \
                        balancer's allowlist? {source}"
                )
            };
            Finding::new(
                CauseCode::BackendTimeout,
                allowed,
                "ask the load balancer's owner to allow that address; check this node's firewall \
                    and NAT",
            )
        }
        IoFailure::Refused => {
            let cause = format!(
                "{tried} refused: the load balancer is up, but nothing listens on the port, \
                    or it rejects this source; {source}"
            );
            Finding::new(
                CauseCode::BackendRefused,
                cause,
                "ask the load balancer's owner about its listener and its allowlist; is the \
                    route's port right?",
            )
        }
        IoFailure::Unreachable => {
            let cause = format!(
                "{tried} can't be reached from this node: no route leads there, or a router \
                    rejects it; {source}"
            );
            Finding::new(
                CauseCode::BackendUnreachable,
                cause,
                "check the node's routes and firewall towards the load balancer",
            )
        }
        IoFailure::NotPermitted => {
            let cause = format!(
                "this host forbids the connect to {tried} after it was redirected: another program \
                    on the hook, or a policy, refuses it"
            );
            Finding::new(
                CauseCode::ForbiddenHere,
                cause,
                "`bpftool cgroup tree` lists the programs on each cgroup; does an egress policy \
                    allow the load balancer?",
            )
        }
        other => {
            let cause = format!("connect to {tried} failed: {}; {source}", other.label());
            Finding::new(
                CauseCode::BackendFailed,
                cause,
                "check `redirector route show` and this node's firewall",
            )
        }
    }
}

/// No hook saw the connect.
fn hook_missed(why: &IoFailure, facts: &Facts<'_>) -> Finding {
    if !facts.attached {
        return not_attached();
    }
    if !facts.covered {
        return wrong_cgroup(&facts.cgroup);
    }
    let cause = format!(
        "the programs are attached above {} and did not see the connect ({}): another program on \
            the hook, or a policy, refused it first",
        facts.cgroup,
        why.label()
    );
    Finding::new(
        CauseCode::HookMissed,
        cause,
        "`bpftool cgroup tree` lists the programs on each cgroup; `redirector check` shows \
            what this host lacks",
    )
}
