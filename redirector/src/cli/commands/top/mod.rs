//! `redirector top`: live rates of routes and backends.
//!
//! | module | does |
//! |---|---|
//! | `sample` | numbers: what happened between two readings of the counters |
//! | `page` | lines: a sample for a person |
//! | `screen` | the terminal and its keys |

mod columns;
mod command;
mod page;
mod sample;
mod screen;

pub(crate) use command::Top;
