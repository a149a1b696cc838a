//! Rules about the workspace's own source text that no lint checks.

pub mod modules;
pub mod targets;
