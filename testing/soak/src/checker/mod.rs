//! The observer: it holds what was seen against the contract, and knows nothing of how the product
//! works.
//!
//! All of it is a function of the history, so that each rule is tested with a history that breaks
//! it.

mod connects;
mod contract;
mod counters;
#[cfg(test)]
pub(crate) mod fake;
mod growth;
mod lookups;

pub(crate) use contract::Context;
pub use contract::{Rule, Violation};
pub(crate) use counters::check as counters;
pub(crate) use growth::{check as growth, settled};
use testbed::clients::TaskKind;

use crate::history::Record;

/// Holds operations against the contract; the faults that overlap them must have begun. The result
/// is sorted by time.
pub(crate) fn operations(context: Context<'_>, records: &[Record]) -> Vec<Violation> {
    let mut violations: Vec<Violation> = records
        .iter()
        .filter_map(|record| {
            let task = &context.clients[record.client].tasks[record.operation.task];
            match task.kind {
                TaskKind::Connect => connects::check(context, record),
                TaskKind::Held => connects::check_held(context, record),
                TaskKind::Direct => connects::check_direct(context, record),
                TaskKind::Denied => connects::check_denied(context, record),
                _ => lookups::check(context, task, record),
            }
        })
        .collect();
    violations.extend(connects::check_avoided(context, records));
    violations.sort_by_key(|violation| violation.at_us);
    violations
}
