//! What the tasks share with the tests: where things are, the test bed, and the demo that is played on it.

pub mod demo;
pub mod testbed;
pub mod workspace;
