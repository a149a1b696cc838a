//! The embedded programs, and loading them.

#[cfg(test)]
mod miss_tests;
pub(crate) mod object;
mod strip_helper;
