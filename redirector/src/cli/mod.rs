//! The command line: one file per noun or verb, each command a function over an injected
//! [`io::Env`].
//!
//! Standard output is for data, standard error for messages; exit codes are those of [`Exit`].

mod agent_paths;
mod args;
mod commands;
mod context;
mod event_text;
mod exit;
mod findings;
pub mod io;
mod log_args;
mod output;
mod route_tables;
mod status_source;
#[cfg(test)]
mod tests;
mod workload;

pub use self::{
    args::{command, main},
    exit::Exit,
};
