//! `redirector top`: live rates of routes and backends.
//!
//! | module | does |
//! |---|---|
//! | `sample` | numbers: what happened between two readings of the counters |
//! | `served` | numbers: who is served which way |
//! | `page` | lines: a sample for a person |
//! | `screen` | the terminal and its keys |

mod columns;
mod command;
mod page;
mod sample;
mod screen;
mod served;

pub(crate) use command::Top;
