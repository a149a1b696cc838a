//! The whole product on the real kernel: the agent with exactly its three capabilities, real
//! clients, a real registry behind real load balancers.

mod attach;
mod clients;
mod commands;
mod dns;
mod fake_api;
mod lifecycle;
mod rig;
mod snapshots;
mod stage;
