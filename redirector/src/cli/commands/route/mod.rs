//! `redirector route …`: the noun that matters.

mod change;
mod cluster;
mod diff;
mod history;
mod import;
mod read;
mod verb;

pub(crate) use verb::RouteVerb;
