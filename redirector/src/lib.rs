//! The agent and the command line of redirector, as a library so that tests and tools can use its parts.
//!
//! Arrows point one way: `cli → agent → {control, observe, dns, backend, datapath} → plan → {route, vip} → config → common`.

pub mod backend;
pub mod config;
pub mod datapath;
pub mod dns;
pub mod document;
pub mod durable;
pub mod host;
pub mod nameservers;
pub mod plan;
pub mod route;
pub mod vip;
