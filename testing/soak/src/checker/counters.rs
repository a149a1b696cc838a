//! Rules of counters: the kernel must have counted what clients saw.

use testbed::clients::{Outcome, TaskKind};

use super::contract::{Context, Rule};
use crate::history::{ClientInfo, Counters, Record};

/// Compares the counters of the route under observation, read when nothing was under way, with the
/// operations of all clients. Returns the rule and a text for each difference.
pub(crate) fn check(
    context: Context<'_>,
    counters: Counters,
    records: &[Record],
) -> Vec<(Rule, String)> {
    let mut differences = Vec::new();
    let mut expect = |what: &str, counted: u64, range: std::ops::RangeInclusive<u64>| {
        if !range.contains(&counted) {
            let text = match (range.start(), range.end()) {
                (least, most) if least == most => format!("{what}: {counted}, not {least}"),
                (least, most) => format!("{what}: {counted}, not {least} to {most}"),
            };
            differences.push((Rule::CountersMatch, format!("{text} ({counters:?})")));
        }
    };
    let count = |wanted: &dyn Fn(&ClientInfo, &Record) -> bool| {
        let of = |record: &&Record| wanted(&context.clients[record.client], record);
        records.iter().filter(of).count() as u64
    };
    let kind = |client: &ClientInfo, record: &Record| client.tasks[record.operation.task].kind;
    let is_connect = |client: &ClientInfo, record: &Record| {
        matches!(kind(client, record), TaskKind::Connect | TaskKind::Held)
    };
    let connected = count(&|client, record| {
        is_connect(client, record) && record.operation.outcome != Outcome::Failed
    });
    // The client may give up at the very moment at which the connection is established.
    let given_up = count(&|client, record| {
        is_connect(client, record) && record.operation.outcome == Outcome::Failed
    });
    let denied = count(&|client, record| kind(client, record) == TaskKind::Denied);
    let named = count(&|client, record| {
        let task = &client.tasks[record.operation.task];
        let observed = task.name.as_deref() == Some(testbed::topology::INTERNAL_NAME);
        observed && matches!(task.kind, TaskKind::Udp | TaskKind::ShimUdp)
    });
    expect("started, against ended", counters.started, counters.ended()..=counters.ended());
    expect("closed, against established", counters.closed, {
        counters.established..=counters.established
    });
    if !context.profile.tenant_connects() {
        expect("established", counters.established, connected..=connected + given_up);
        expect("denied", counters.denied, denied..=denied);
        if !context.profile.at_sockets() {
            expect("answered in the kernel", counters.answered, named..=named);
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use testbed::clients::Outcome::{Failed, Right, Ungreeted};

    use super::*;
    use crate::checker::fake::{client, record, timeline};
    use crate::profile::Profile;

    fn found(task: &str, counters: Counters, records: &[Record]) -> Vec<String> {
        let (timeline, clients) = (timeline(&[]), client(task));
        let context = Context { timeline: &timeline, clients: &clients, profile: Profile::Mixed };
        let differences = check(context, counters, records);
        differences.into_iter().map(|(_, text)| text.split(':').next().unwrap().into()).collect()
    }

    fn counted(started: u64, established: u64, closed: u64) -> Counters {
        Counters { started, established, closed, ..Counters::default() }
    }

    #[test]
    fn connects_are_counted_once_each() {
        let connect = "1/connect/198.18.0.1:8080";
        let records = [record(1.0, Right, "lb1"), record(2.0, Ungreeted, "end of stream")];
        assert!(found(connect, counted(2, 2, 2), &records).is_empty());
        assert_eq!(found(connect, counted(1, 1, 1), &records), ["established"]);
        assert_eq!(found(connect, counted(3, 3, 3), &records), ["established"]);
        let more = "started, against ended";
        assert_eq!(found(connect, counted(3, 2, 2), &records), [more]);
        let open = "closed, against established";
        assert_eq!(found(connect, counted(2, 2, 1), &records), [open]);
        let failed = [record(1.0, Failed, "no answer in time")];
        for counters in [
            Counters { started: 1, aborted: 1, ..Counters::default() },
            Counters { started: 1, established: 1, closed: 1, ..Counters::default() },
        ] {
            assert!(found(connect, counters, &failed).is_empty());
        }
    }

    #[test]
    fn refusals_and_answers_are_counted_once_each() {
        let records = [record(1.0, Right, "")];
        for (task, what) in [
            ("1/denied/198.18.0.1:81", "denied"),
            (
                "1/udp/203.0.113.54:53/artifactory.internal.company.net=198.18.0.1",
                "answered in the kernel",
            ),
        ] {
            assert_eq!(found(task, Counters::default(), &records), [what]);
        }
    }
}
