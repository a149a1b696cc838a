//! What the tasks share with the tests: where things are, the test bed, and the demo that stands on it.

pub mod demo;
pub mod testbed;
pub mod workspace;
