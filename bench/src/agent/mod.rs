//! What the agent costs, and how soon a route change is live.

mod cgroups;
mod fixture;
mod run;

pub use self::run::{measure, run};
