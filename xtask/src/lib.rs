//! Everything a contributor runs, and the test bed that tests, demo and benchmarks share.

pub mod demo;
pub mod testbed;
