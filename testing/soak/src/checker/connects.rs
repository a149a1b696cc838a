//! Rules of connects.

use testbed::clients::{Outcome, TaskKind};

use super::contract::{Context, Rule, Violation};
use crate::fault::Condition;
use crate::history::Record;
use crate::timeline::Interval;

/// A link that was lossy may still owe a retransmission.
const LINK_AFTER_US: u64 = 1_500_000;
/// How long a backend may stay ejected after it works again: a probe each second, on a busy
/// machine. Until then another one may be the only choice, although it fails.
const EJECTED_AFTER_US: u64 = 8_000_000;
/// After this, each client has learnt that a backend fails: a silent one by its first
/// retransmission.
const LEARN_US: u64 = 4_000_000;
/// Longest time until a connect to an unlisted port is refused, on a busy machine.
const REFUSED_AT_ONCE_US: u64 = 1_500_000;

/// A connect to the virtual address.
pub(super) fn check(context: Context<'_>, record: &Record) -> Option<Violation> {
    let (operation, timeline) = (&record.operation, context.timeline);
    let span = (operation.start_us, operation.end_us());
    let valid = timeline.valid_backends(span);
    match operation.outcome {
        Outcome::Wrong => Some(context.violation(Rule::PeerName, record)),
        Outcome::Right => {
            let reached = operation.detail.strip_prefix("lb").and_then(|text| text.parse().ok());
            let allowed = reached.is_some_and(|number: usize| valid.contains(&(number - 1)));
            (!allowed).then(|| context.violation(Rule::ValidBackend, record))
        }
        Outcome::Failed | Outcome::Ungreeted => {
            (!is_excused(context, record)).then(|| context.violation(Rule::ConnectSucceeds, record))
        }
    }
}

/// A connection that is kept. Which backend it has is not known; what comes back must be right.
pub(super) fn check_held(context: Context<'_>, record: &Record) -> Option<Violation> {
    let rule = match record.operation.outcome {
        Outcome::Right => return None,
        Outcome::Wrong => Rule::PeerName,
        _ if is_excused(context, record) => return None,
        Outcome::Failed => Rule::ConnectSucceeds,
        Outcome::Ungreeted => Rule::ConnectionLives,
    };
    Some(context.violation(rule, record))
}

/// Whether the link or a backend that it may have had suffered meanwhile.
fn is_excused(context: Context<'_>, record: &Record) -> bool {
    let span = (record.operation.start_us, record.operation.end_us());
    let suffers = |condition, after| context.timeline.suffers(condition, span, after);
    let valid = context.timeline.valid_backends(span);
    suffers(Condition::Uplink, LINK_AFTER_US)
        || valid.into_iter().any(|at| suffers(Condition::Backend(at), 0))
}

/// A connect to an address outside the pool.
pub(super) fn check_direct(context: Context<'_>, record: &Record) -> Option<Violation> {
    let operation = &record.operation;
    let span = (operation.start_us, operation.end_us());
    match operation.outcome {
        Outcome::Wrong => Some(context.violation(Rule::PeerName, record)),
        Outcome::Right => None,
        _ if context.timeline.suffers(Condition::Uplink, span, LINK_AFTER_US) => None,
        _ => Some(context.violation(Rule::ConnectSucceeds, record)),
    }
}

/// A connect to a port that the route does not list. No fault is an excuse.
pub(super) fn check_denied(context: Context<'_>, record: &Record) -> Option<Violation> {
    let operation = &record.operation;
    let at_once = operation.took_us <= REFUSED_AT_ONCE_US;
    (operation.outcome != Outcome::Right || !at_once)
        .then(|| context.violation(Rule::UnlistedPortRefused, record))
}

/// Failures of each client towards a backend that has failed for long enough to be known.
pub(super) fn check_avoided(context: Context<'_>, records: &[Record]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for at in 0..2 {
        for fault in context.timeline.with(Condition::Backend(at)) {
            for client in 0..context.clients.len() {
                let failed: Vec<&Record> = records
                    .iter()
                    .filter(|record| {
                        record.client == client && is_avoidable(context, at, fault, record)
                    })
                    .collect();
                let Some(first) = failed.first() else { continue };
                let last = failed.last().map_or(0, |record| record.operation.start_us);
                // One trial for a second and a half, and one that was under way.
                let allowed = 1 + (last - fault.from_us - LEARN_US) / 1_500_000;
                if failed.len() as u64 > allowed {
                    let mut violation = context.violation(Rule::FailedBackendAvoided, first);
                    violation.text += &format!(" and {} more, {allowed} allowed", failed.len() - 1);
                    violations.push(violation);
                }
            }
        }
    }
    violations
}

/// Whether a connect failed although its client must know that this backend fails, and another
/// valid one works and has worked for long enough.
fn is_avoidable(context: Context<'_>, at: usize, fault: &Interval, record: &Record) -> bool {
    let task = &context.clients[record.client].tasks[record.operation.task];
    let (from, to) = (record.operation.start_us, record.operation.end_us());
    if task.kind != TaskKind::Connect
        || record.operation.outcome != Outcome::Failed
        || from < fault.from_us + LEARN_US
        || fault.to_us.is_some_and(|end| from > end)
    {
        return false;
    }
    let timeline = context.timeline;
    let since = fault.from_us.saturating_sub(EJECTED_AFTER_US);
    // An agent that has not noticed an address yet knows no alternative.
    let known = timeline.known_backends((from, to));
    let alternative = known.iter().any(|other| {
        *other != at && !timeline.suffers(Condition::Backend(*other), (since, to), EJECTED_AFTER_US)
    });
    // A backend that has just been added has no history: all others may still be ejected.
    let unchanged = timeline.valid_backends((since, to)) == timeline.valid_backends((to, to));
    alternative && unchanged && !timeline.suffers(Condition::Uplink, (since, to), EJECTED_AFTER_US)
}

#[cfg(test)]
mod tests {
    use testbed::clients::Outcome::{Failed, Right, Ungreeted, Wrong};

    use super::*;
    use crate::checker::fake::{S, broken, record, timeline};

    const CONNECT: &str = "1/connect/198.18.0.1:8080";

    #[test]
    fn another_peer_name_is_never_excused() {
        let all = [Condition::Uplink, Condition::Backend(0), Condition::AgentAway];
        let timeline = timeline(&all.map(|condition| (0, 100, condition)));
        let records = [record(10.0, Wrong, "peer 203.0.113.7:8080")];
        assert_eq!(broken(CONNECT, &timeline, &records), [Rule::PeerName]);
        assert_eq!(broken("1/direct/203.0.113.9:80", &timeline, &records), [Rule::PeerName]);
    }

    #[test]
    fn a_backend_outside_the_set_of_its_time_is_found() {
        let mut timeline = timeline(&[]);
        timeline.publish(50 * S, [1]);
        let records =
            [record(49.0, Right, "lb1"), record(80.0, Right, "lb2"), record(80.0, Right, "lb1")];
        assert_eq!(broken(CONNECT, &timeline, &records), [Rule::ValidBackend]);
        let records = [record(49.0, Right, "another server")];
        assert_eq!(broken(CONNECT, &timeline, &records), [Rule::ValidBackend]);
    }

    #[test]
    fn a_failed_connect_needs_a_fault_of_its_own_way() {
        for outcome in [Failed, Ungreeted] {
            let records = [record(10.0, outcome, "ECONNREFUSED")];
            assert_eq!(broken(CONNECT, &timeline(&[]), &records), [Rule::ConnectSucceeds]);
            for no_excuse in [Condition::AgentAway, Condition::DnsAway, Condition::Upstream(0)] {
                let timeline = timeline(&[(9, 12, no_excuse)]);
                assert_eq!(broken(CONNECT, &timeline, &records), [Rule::ConnectSucceeds]);
            }
            for excuse in [Condition::Uplink, Condition::Backend(1)] {
                assert_eq!(broken(CONNECT, &timeline(&[(9, 12, excuse)]), &records), []);
                let before = timeline(&[(2, 5, excuse)]);
                assert_eq!(broken(CONNECT, &before, &records), [Rule::ConnectSucceeds]);
            }
        }
        let records = [record(10.0, Failed, "ETIMEDOUT")];
        let backend = timeline(&[(9, 12, Condition::Backend(1))]);
        assert_eq!(
            broken("1/direct/203.0.113.9:80", &backend, &records),
            [Rule::ConnectSucceeds],
            "a direct connect does not depend on a load balancer"
        );
    }

    #[test]
    fn a_kept_connection_survives_all_but_its_backend_and_the_link() {
        let held = "1/held/198.18.0.1:443";
        let records = [record(10.0, Ungreeted, "broken after 8.0 s: ECONNRESET")];
        for no_excuse in [Condition::AgentAway, Condition::DnsAway, Condition::Upstream(0)] {
            let timeline = timeline(&[(9, 12, no_excuse)]);
            assert_eq!(broken(held, &timeline, &records), [Rule::ConnectionLives]);
        }
        for excuse in [Condition::Uplink, Condition::Backend(1)] {
            assert_eq!(broken(held, &timeline(&[(9, 12, excuse)]), &records), []);
        }
        let other_bytes = [record(10.0, Wrong, "other bytes came back")];
        let uplink = timeline(&[(9, 12, Condition::Uplink)]);
        assert_eq!(broken(held, &uplink, &other_bytes), [Rule::PeerName]);
    }

    #[test]
    fn a_backend_that_left_the_set_excuses_no_failure() {
        let mut timeline = timeline(&[(79, 82, Condition::Backend(0))]);
        timeline.publish(50 * S, [1]);
        let records = [record(80.0, Failed, "ECONNREFUSED")];
        assert_eq!(broken(CONNECT, &timeline, &records), [Rule::ConnectSucceeds]);
    }

    #[test]
    fn a_backend_that_is_known_to_fail_is_avoided() {
        let timeline = timeline(&[(20, 40, Condition::Backend(0))]);
        let failing = |from: f64| -> Vec<Record> {
            (0..8).map(|n| record(from + f64::from(n) / 10.0, Failed, "ETIMEDOUT")).collect()
        };
        assert_eq!(broken(CONNECT, &timeline, &failing(20.0)), []);
        assert_eq!(broken(CONNECT, &timeline, &failing(30.0)), [Rule::FailedBackendAvoided]);
        let trials: Vec<_> =
            (0..8).map(|n| record(24.0 + 2.0 * f64::from(n), Failed, "ETIMEDOUT")).collect();
        assert_eq!(broken(CONNECT, &timeline, &trials), []);
    }

    #[test]
    fn without_an_alternative_failures_continue() {
        let timeline =
            timeline(&[(20, 40, Condition::Backend(0)), (10, 15, Condition::Backend(1))]);
        let records: Vec<_> =
            (0..8).map(|n| record(30.0 + f64::from(n) / 10.0, Failed, "ETIMEDOUT")).collect();
        assert_eq!(broken(CONNECT, &timeline, &records), []);
    }

    #[test]
    fn an_address_that_the_agent_may_not_know_is_no_alternative() {
        let faults = [(93, 99, Condition::AgentAway), (97, 104, Condition::Backend(1))];
        let mut timeline = timeline(&faults);
        timeline.publish(82 * S, [1]);
        timeline.publish(88 * S, [0, 1]);
        let failing = |from: f64| -> Vec<Record> {
            (0..8).map(|n| record(from + f64::from(n) / 10.0, Failed, "EHOSTUNREACH")).collect()
        };
        assert_eq!(broken(CONNECT, &timeline, &failing(101.5)), []);
        let number = timeline.begin(130 * S, Some(Condition::Backend(1)), String::new());
        timeline.end(number, 140 * S);
        let rules = broken(CONNECT, &timeline, &failing(136.0));
        assert_eq!(rules, [Rule::FailedBackendAvoided]);
    }

    #[test]
    fn nothing_excuses_an_unlisted_port_that_is_not_refused_at_once() {
        let denied = "1/denied/198.18.0.1:81";
        let timeline = timeline(&[(0, 100, Condition::AgentAway), (0, 100, Condition::Uplink)]);
        assert_eq!(broken(denied, &timeline, &[record(5.0, Right, "ECONNREFUSED")]), []);
        for outcome in [Wrong, Failed] {
            let records = [record(5.0, outcome, "")];
            assert_eq!(broken(denied, &timeline, &records), [Rule::UnlistedPortRefused]);
        }
        let mut slow = record(5.0, Right, "ECONNREFUSED");
        slow.operation.took_us = 3 * S;
        assert_eq!(broken(denied, &timeline, &[slow]), [Rule::UnlistedPortRefused]);
    }
}
