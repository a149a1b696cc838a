//! The agent and the command line of redirector, as a library so that tests and tools can use its
//! parts.
//!
//! Arrows point one way:
//! `cli → agent → {control, observe, dns, backend, datapath, state} → plan → {route, vip} → config → common`.

pub mod agent;
pub mod backend;
pub mod cli;
pub mod config;
pub mod control;
pub mod datapath;
pub mod dns;
pub mod document;
pub mod durable;
pub mod host;
pub mod net;
pub mod observe;
pub mod plan;
#[cfg(test)]
mod reference;
pub mod route;
pub mod state;
pub mod verify;
pub mod vip;
