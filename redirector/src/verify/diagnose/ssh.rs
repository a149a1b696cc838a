//! What an SSH banner, or its absence, means.

use super::{
    facts::Facts,
    session::{closed, silent},
};
use crate::{
    printable::printable,
    verify::{
        cause_code::CauseCode,
        probe::{IoFailure, SshResult},
        report::Finding,
    },
};

pub(super) fn diagnose_ssh(seen: &SshResult, facts: &Facts<'_>) -> (String, Option<Finding>) {
    match seen {
        SshResult::Banner { banner } => (printable(banner).into_owned(), None),
        SshResult::NotSsh { begins } => {
            let begins = printable(begins);
            let cause = format!(
                "port {} of {} does not speak SSH: the answer begins with `{begins}`",
                facts.destination_port(),
                facts.before_name()
            );
            let next = "is it the right port? `verify https://NAME:PORT` verifies TLS and HTTP";
            (begins.into_owned(), Some(Finding::new(CauseCode::NotSsh, cause, next)))
        }
        SshResult::Failed { why: IoFailure::TimedOut } => {
            (IoFailure::TimedOut.label().to_owned(), Some(silent(facts, "with an SSH banner")))
        }
        SshResult::Failed { why } => {
            (why.label().to_owned(), Some(closed(facts, "an SSH banner came")))
        }
    }
}
