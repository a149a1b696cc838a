//! The agent and the command line of redirector, as a library so that tests and tools can use its
//! parts.
//!
//! Imports point one way: `cli` → `verify`, `agent` → `control`, `observe`, `dns`, `backend`,
//! `datapath`, `state` → `plan` → `config` → `route` → `pool`, `spanned` → `redirector_common`;
//! and `cli`, `agent` → `cluster` → `kubernetes`.

pub mod agent;
pub mod atomic_file;
pub mod backend;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod datapath;
pub mod dns;
mod error;
pub mod host;
mod http;
pub mod kubernetes;
pub mod net;
pub mod observe;
pub mod plan;
pub mod pool;
mod printable;
pub mod route;
pub mod spanned;
pub mod state;
#[cfg(test)]
mod test_support;
pub mod verify;
