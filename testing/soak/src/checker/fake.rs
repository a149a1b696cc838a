//! A history of one client, to break rules with.

use testbed::clients::{Operation, Outcome, Task};

use super::{Context, Rule, operations};
use crate::history::{ClientInfo, Record};
use crate::profile::Profile;
use crate::timeline::Timeline;

pub(crate) const S: u64 = 1_000_000;

pub(crate) fn client(task: &str) -> Vec<ClientInfo> {
    let task: Task = task.parse().unwrap();
    vec![ClientInfo { name: "pod".to_owned(), tasks: vec![task] }]
}

/// An operation of a tenth of a second.
pub(crate) fn record(second: f64, outcome: Outcome, detail: &str) -> Record {
    let operation = Operation {
        task: 0,
        start_us: (second * S as f64) as u64,
        took_us: S / 10,
        outcome,
        detail: detail.to_owned(),
    };
    Record { client: 0, operation }
}

/// Both load balancers, with these faults: from, to, what.
pub(crate) fn timeline(faults: &[(u64, u64, crate::fault::Condition)]) -> Timeline {
    let mut timeline = Timeline::default();
    timeline.publish(0, [0, 1]);
    for (from, to, condition) in faults {
        let number = timeline.begin(from * S, Some(*condition), String::new());
        timeline.end(number, to * S);
    }
    timeline
}

/// The rules that the records of this task break.
pub(crate) fn broken(task: &str, timeline: &Timeline, records: &[Record]) -> Vec<Rule> {
    let clients = client(task);
    let context = Context { timeline, clients: &clients, profile: Profile::Mixed };
    operations(context, records).into_iter().map(|violation| violation.rule).collect()
}
