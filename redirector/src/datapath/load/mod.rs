//! The embedded programs and their loading.

mod copying_programs;
pub(crate) mod decision_log;
#[cfg(test)]
mod miss_tests;
pub(crate) mod object;
mod strip_helper;
