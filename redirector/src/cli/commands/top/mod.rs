//! `top`: routes and backends at work, refreshed.
//!
//! | module | does |
//! |---|---|
//! | `sample` | numbers: what happened between two looks at the counters |
//! | `page` | lines: a sample for a person |
//! | `screen` | the terminal and its keys |

mod columns;
mod command;
mod page;
mod sample;
mod screen;

pub(crate) use command::Top;
