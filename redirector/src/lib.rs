//! The agent and the command line of redirector, as a library so that tests and tools can use its parts.
//!
//! Arrows point one way: `cli → agent → {control, observe, dns, backend, datapath} → plan → {route, vip} → config → common`.

pub mod config;
pub mod control;
mod document;
mod durable;
pub mod route;
pub mod vip;
