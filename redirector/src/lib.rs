//! The agent and the command line of redirector, as a library so that tests and tools can use its parts.
//!
//! Arrows point one way: `cli → agent → {control, observe, dns, backend, datapath} → plan → {route, vip} → config → common`.

pub mod control;
pub mod route;
