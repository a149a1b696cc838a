//! The cost of a connect.

mod baseline;
mod bpf;
mod client;
mod fixture;
mod plan;
mod plot;
mod render;
mod report;
mod rounds;
mod run;
mod variants;

pub use self::report::{HookCost, Ratio, Report, Scenario, Target, Timing};
pub use self::run::{Options, measure, run, write};
