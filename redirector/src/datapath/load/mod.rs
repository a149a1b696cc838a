//! The embedded programs, and loading them.

pub(crate) mod decision_log;
pub(crate) mod hooks;
#[cfg(test)]
mod miss_tests;
pub(crate) mod object;
mod strip_helper;
