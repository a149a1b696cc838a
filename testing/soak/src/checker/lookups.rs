//! Rules of look-ups.

use testbed::clients::{Outcome, Task, TaskKind};

use super::contract::{Context, Rule, Violation};
use crate::fault::Condition;
use crate::history::Record;

/// How long the shim may avoid an upstream that works again.
const UPSTREAM_AFTER_US: u64 = 8_000_000;

/// Queries to the shim wait for an agent that is away for no longer: its sockets are kept. It is
/// below the time-out of clients.
const WAITS_US: u64 = 3_000_000;
/// From the note of a fault to its effect, on a busy machine.
const NOTED_BEFORE_US: u64 = 400_000;

/// A look-up. A wrong answer has no excuse; a missing one has what its way depends on.
pub(super) fn check(context: Context<'_>, task: &Task, record: &Record) -> Option<Violation> {
    let operation = &record.operation;
    match operation.outcome {
        Outcome::Wrong => Some(context.violation(Rule::RightAnswer, record)),
        Outcome::Right => {
            let limit = context.profile.slowest_lookup()?;
            (u128::from(operation.took_us) > limit.as_micros())
                .then(|| context.violation(Rule::LookupInTime, record))
        }
        Outcome::Failed | Outcome::Ungreeted => (!is_excused(context, task, record))
            .then(|| context.violation(Rule::LookupAnswered, record)),
    }
}

fn is_excused(context: Context<'_>, task: &Task, record: &Record) -> bool {
    let span = (record.operation.start_us, record.operation.end_us());
    let suffers = |condition, after_us| context.timeline.suffers(condition, span, after_us);
    let mapped = task.address.is_some();
    match task.kind {
        // The kernel answers in place, with or without an agent, except for names intercepted at
        // sockets.
        TaskKind::Udp | TaskKind::ShimUdp if mapped => {
            context.profile.at_sockets() && misses_the_agent(context, span)
        }
        // Its own resolver answers, whatever happens to us.
        TaskKind::Udp | TaskKind::Tcp => {
            suffers(Condition::Uplink, 0) || suffers(Condition::Upstream(0), 0)
        }
        _ if misses_the_agent(context, span) || suffers(Condition::ShimAway, 0) => true,
        _ if mapped => false,
        _ => {
            let no_upstream = (0..2).all(|at| suffers(Condition::Upstream(at), UPSTREAM_AFTER_US));
            no_upstream || suffers(Condition::Uplink, UPSTREAM_AFTER_US)
        }
    }
}

/// Whether an agent was away for longer than its sockets can wait, or ended while it had the query.
fn misses_the_agent(context: Context<'_>, span: (u64, u64)) -> bool {
    let away = context.timeline.with(Condition::AgentAway);
    away.filter(|away| away.overlaps(span.0, span.1, 0)).any(|away| {
        let is_long = away.to_us.is_none_or(|end| end - away.from_us >= WAITS_US);
        is_long || span.0 <= away.from_us + NOTED_BEFORE_US
    })
}

#[cfg(test)]
mod tests {
    use testbed::clients::Outcome::{Failed, Right, Wrong};

    use super::*;
    use crate::checker::fake::{S, broken, client, record, timeline};
    use crate::checker::operations;
    use crate::fault::Attack;
    use crate::profile::Profile;

    const MAPPED: &str = "1/udp/203.0.113.54:53/a.test=198.18.0.1";
    const UNRELATED: &str = "1/udp/203.0.113.54:53/b.test";
    const BY_TCP: &str = "1/tcp/203.0.113.54:53/a.test";
    const AT_SHIM: &str = "1/shim-udp/169.254.20.53:53/b.test";
    const AT_SHIM_BY_TCP: &str = "1/shim-tcp/169.254.20.53:53/a.test=198.18.0.1";

    #[test]
    fn a_wrong_answer_is_never_excused() {
        let all = [Condition::Uplink, Condition::Upstream(0), Condition::AgentAway];
        let timeline = timeline(&all.map(|condition| (0, 100, condition)));
        for task in [MAPPED, UNRELATED, BY_TCP, AT_SHIM, AT_SHIM_BY_TCP] {
            let records = [record(9.0, Wrong, "from 203.0.113.54:53: []")];
            assert_eq!(broken(task, &timeline, &records), [Rule::RightAnswer], "{task}");
        }
    }

    /// For each way, what excuses a missing answer, alone; nothing else does.
    #[test]
    fn a_missing_answer_needs_a_fault_of_its_own_way() {
        use Condition::{AgentAway, Backend, DnsAway, ShimAway, Uplink, Upstream};
        let ways: [(&str, &[Condition]); 5] = [
            (MAPPED, &[]),
            (UNRELATED, &[Uplink, Upstream(0)]),
            (BY_TCP, &[Uplink, Upstream(0)]),
            (AT_SHIM, &[Uplink, AgentAway, ShimAway]),
            (AT_SHIM_BY_TCP, &[AgentAway, ShimAway]),
        ];
        let upstreams = [Upstream(0), Upstream(1)];
        let others = [AgentAway, ShimAway, Backend(0), DnsAway, Uplink];
        for (task, excuses) in ways {
            for condition in others.into_iter().chain(upstreams) {
                let timeline = timeline(&[(8, 12, condition)]);
                let found = broken(task, &timeline, &[record(10.0, Failed, "no answer in time")]);
                let excused = excuses.contains(&condition);
                assert_eq!(found.is_empty(), excused, "{task} during {condition:?}: {found:?}");
            }
        }
    }

    #[test]
    fn the_shim_fails_only_without_both_upstreams() {
        let both = timeline(&[(8, 12, Condition::Upstream(0)), (9, 12, Condition::Upstream(1))]);
        assert_eq!(broken(AT_SHIM, &both, &[record(10.0, Failed, "SERVFAIL")]), []);
    }

    #[test]
    fn queries_wait_for_an_agent_that_is_away_for_a_moment() {
        let away = timeline(&[(8, 10, Condition::AgentAway)]);
        for task in [AT_SHIM, AT_SHIM_BY_TCP] {
            let waiting = record(9.0, Failed, "no answer in time");
            assert_eq!(broken(task, &away, &[waiting]), [Rule::LookupAnswered]);
            // The agent had received it, and ended.
            assert_eq!(broken(task, &away, &[record(7.95, Failed, "ECONNRESET")]), []);
        }
    }

    #[test]
    fn each_agent_of_a_crash_loop_takes_its_queries_along() {
        let crashes = timeline(&[(8, 10, Condition::AgentAway), (9, 10, Condition::AgentAway)]);
        for task in [AT_SHIM, AT_SHIM_BY_TCP] {
            assert_eq!(broken(task, &crashes, &[record(8.95, Failed, "ECONNRESET")]), []);
            let waiting = record(9.5, Failed, "no answer in time");
            assert_eq!(broken(task, &crashes, &[waiting]), [Rule::LookupAnswered]);
        }
    }

    #[test]
    fn an_attacked_look_up_is_answered_within_a_second() {
        let (timeline, clients) = (timeline(&[]), client(MAPPED));
        let mut slow = record(10.0, Right, "");
        slow.operation.took_us = 2 * S;
        for (profile, expected) in [
            (Profile::Mixed, vec![]),
            (Profile::Attacks(Attack::SynFlood), vec![Rule::LookupInTime]),
        ] {
            let context = Context { timeline: &timeline, clients: &clients, profile };
            let found = operations(context, std::slice::from_ref(&slow));
            let rules: Vec<_> = found.iter().map(|violation| violation.rule).collect();
            assert_eq!(rules, expected);
        }
    }
}
