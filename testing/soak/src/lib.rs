//! `cargo xtask soak`: clients of all kinds under load while a seeded schedule lets everything go
//! wrong, and an observer that holds every connection and every look-up against the contract.
//!
//! ```text
//!   schedule ──▶ faults ──▶ field ◀── clients
//!                  │          │          │
//!              timeline    samples    records
//!                  └──────────┴──────────┴──▶ checker ──▶ report
//! ```
//!
//! The schedule and the checker are functions without effects. The checker takes nothing from the
//! product but its counters, which it compares with what clients saw.

mod checker;
mod clients;
mod fault;
mod faults;
mod field;
mod history;
mod options;
mod profile;
mod progress;
mod report;
mod run;
mod samples;
mod schedule;
mod tenants;
mod timeline;

pub use checker::{Rule, Violation};
pub use fault::Attack;
pub use options::Options;
pub use profile::ProfileName;
pub use report::{Breach, Report, Totals};
pub use run::run;
