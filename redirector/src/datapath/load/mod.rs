//! The embedded programs and their loading.

pub(crate) mod decision_log;
#[cfg(test)]
mod miss_tests;
pub(crate) mod object;
mod strip_helper;
